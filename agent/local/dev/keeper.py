"""The one process beside `rollway dev` that outlives it, by a moment: it ends what a killed one could not.

It holds the reading end of a pipe whose other end has `rollway dev` alone, and which ends with it, however that came.
What it then finds below the run folder gets SIGTERM, a while, SIGKILL; the folder is removed. After an orderly end
there is nothing left to find. It has a session of its own: what is sent to the terminal's processes passes it by.

Rules: instances are known by their mark, their sessions and whom they started, looked for again until none is found.
Who empties his environment, leaves the session and outlives his parent is not found any more. Synchronous.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import agent
from agent.errors import FailedError
from agent.linux import pidfd, procfs, spawn
from agent.linux.executable import ExecFailure
from agent.linux.removal import remove_tree
from agent.local import leftovers

LIFELINE_FD: Final = 3
GRACE_S: Final = 3.0
ENDED_WITHIN_S: Final = 10.0
_LOOK_S: Final = 0.02
_PACKAGE: Final = Path(agent.__file__).parent.parent


class Keeper:
    """The handle of `rollway dev` on its keeper. Made before anything is started that it would have to end."""

    def __init__(self, run_dir: Path) -> None:
        lifeline, self._our_end = os.pipe()
        nowhere = os.open(os.devnull, os.O_RDWR)
        try:
            started = spawn.spawn(
                spawn.Launch(
                    argv=(sys.executable, "-P", "-m", __name__, str(run_dir)),
                    env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(_PACKAGE)},
                    cwd=Path("/"),
                    stdout=nowhere,
                    stderr=nowhere,
                    listen=(lifeline,),
                )
            )
        finally:
            os.close(lifeline)
            os.close(nowhere)
        if isinstance(started, ExecFailure):
            os.close(self._our_end)
            raise FailedError(f"cannot start the process that clears up after a killed one: {started}")
        self._pidfd: Final = started.pidfd

    def close(self) -> None:
        """Let it go, and wait for its end: nothing of ours is left then."""
        os.close(self._our_end)
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        ended.poll(ENDED_WITHIN_S * 1_000)
        pidfd.collect(self._pidfd)
        os.close(self._pidfd)


def living(run_dir: Path) -> list[procfs.Process]:
    """The processes of all instances below `run_dir`, and all that these have started."""
    found = procfs.processes()
    bearers = procfs.bearers(leftovers.mark(run_dir))
    members = {one.pid for one in bearers} & found.keys()
    sessions = {one.session for one in bearers}
    members |= {pid for pid, one in found.items() if one.session in sessions}
    while grown := {pid for pid, one in found.items() if one.parent in members} - members:
        members |= grown
    return [found[pid] for pid in sorted(members - {os.getpid()}) if found[pid].state not in "ZX"]


def end_all(run_dir: Path, grace_s: float = GRACE_S) -> None:
    """The stop signal to each main process, once, then SIGKILL to everybody who is left."""
    for one in living(run_dir):
        if one.pid == one.session:
            pidfd.send_to(one.pid, one.start_time, signal.SIGTERM)
    _wait(lambda: not living(run_dir), grace_s)
    _wait(lambda: not kill_all(run_dir), grace_s)


def kill_all(run_dir: Path) -> list[int]:
    """SIGKILL to everybody who lives now, and their pids."""
    found = living(run_dir)
    for one in found:
        pidfd.send_to(one.pid, one.start_time, signal.SIGKILL)
    return [one.pid for one in found]


def _wait(over: Callable[[], bool], within_s: float) -> None:
    until_s = time.monotonic() + within_s
    while not over() and time.monotonic() < until_s:
        time.sleep(_LOOK_S)


def main(run_dir: Path) -> None:
    """Be the keeper."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.read(LIFELINE_FD, 1)
    end_all(run_dir)
    with suppress(OSError):
        remove_tree(run_dir)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
