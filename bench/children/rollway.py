"""Rollway in the race: the whole agent as its unit starts it, with what the unit gives it.

That is: an assignment that lies ready in its state, from a coordinator that is not there; the release verified before
its start; a run folder in memory, as /run is, with a record of each instance; the FD store (`peers/manager.py` in the
place of systemd); a cgroup of its own for each instance beside that of the agent, where this machine lets us; its
output read from a pipe, as journald does.

`rollway` has a socket for each instance and a TCP readiness and liveness probe of each, by their defaults.
`rollway-plain` has neither socket nor probe, as a worker: what peers know of a child. Neither lingers before its stop
signal, for no peer does: the assignment says so.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from msgspec.structs import replace

from agent.host.assignments import AppKey, States
from agent.linux import cgroup
from agent.model.ids import AppName, EnvironmentName, ProcessName
from bench.children.contestants import Command
from bench.peers import rollway as agent

MANAGER: Final = Path(__file__).parents[1] / "peers" / "manager.py"
PROCESS: Final = ProcessName("child")
_PORT: Final = 9703
_PROBED: Final = f"""
listen = ["0.0.0.0:{_PORT}"]
[process.child.probe.readiness]
tcp = true
[process.child.probe.liveness]
tcp = true
"""
KINDS: Final = {"rollway": _PROBED, "rollway-plain": ""}
MEMORY_FILES: Final = Path("/dev/shm")  # noqa: S108 - what /run is on a host
_EMPTY_WITHIN_S: Final = 5.0


class Units(NamedTuple):
    """The cgroups that systemd would make for the agent and for the apps."""

    agent: Path
    apps: Path


class Rollway:
    """A host with both kinds as apps. `prepare` gives it one of them, so many instances, and nothing else to run."""

    def __init__(self, config: Path, units: Units | None) -> None:
        self._config = config
        self._units = units
        self._manager: subprocess.Popen[bytes] | None = None
        self._folder = next(config.parent.rglob("apps"))
        self._assigned = States(self._folder).load(_not_trusted)

    @property
    def lacks(self) -> str:
        """What of the whole is missing here."""
        return "" if self._units else ", no cgroups on this machine"

    def prepare(self, kind: str, _folder: Path, _child: list[str], count: int) -> Command:
        shutil.rmtree(self._folder)
        self._folder.mkdir(mode=0o700)
        key = AppKey(AppName(kind), EnvironmentName(agent.ENVIRONMENT))
        state = self._assigned[key]
        if state.assignment is None:
            raise AssertionError(f"{key} was not assigned")
        assignment = replace(state.assignment, counts={PROCESS: count}, linger_ms=0)
        States(self._folder).store(key, replace(state, assignment=assignment, instances=()))
        words = agent.command(self._config)
        if self._units:
            into = f'echo $$ >{self._units.agent}/cgroup.procs && exec "$@"'
            words = ["/bin/sh", "-c", into, "sh", *words]
        env = agent.environment() | {"NOTIFY_SOCKET": f"@{self._manage()}"}
        return Command(words, env, signal.SIGINT)

    def _manage(self) -> str:
        """Give the agent a service manager that has nothing of an earlier one, as after a boot; the socket's name."""
        self.close()
        name = f"rollway/bench/{os.getpid()}"
        self._manager = subprocess.Popen([sys.executable, "-P", str(MANAGER), name], stdout=subprocess.PIPE)
        if self._manager.stdout is None or not self._manager.stdout.readline():
            raise AssertionError("nobody takes the service manager's place")
        return name

    def close(self) -> None:
        if self._manager is not None:
            self._manager.kill()
            self._manager.communicate()


def _not_trusted(path: Path, why: str) -> None:
    raise AssertionError(f"{path}: {why}")


@contextmanager
def rollway(folder: Path, child: list[str], net: str | None) -> Iterator[Rollway]:
    apps = {kind: f"[process.child]\ncommand = {json.dumps(shlex.join(child))}{more}" for kind, more in KINDS.items()}
    in_memory = MEMORY_FILES if os.access(MEMORY_FILES, os.W_OK) else folder
    with (
        agent.assigned(folder, apps, net) as config,
        TemporaryDirectory(prefix="rollway-bench-", dir=in_memory) as run_dir,
        _units() as units,
        closing(Rollway(config, units)) as one,
    ):
        lines = config.read_text().splitlines()
        lines = [f'run_dir = "{run_dir}"' if line.startswith("run_dir =") else line for line in lines]
        config.write_text("\n".join(lines))
        yield one


@contextmanager
def _units() -> Iterator[Units | None]:
    """As systemd makes them: the agent's, and the apps' with a process that holds it. None where we may not."""
    own = cgroup.detect()
    if own is None:
        yield None
        return
    top = own / f"rollway-bench-{os.getpid()}"
    units = Units(*(cgroup.create(top, name) for name in (cgroup.AGENT_UNIT, cgroup.APPS_UNIT)))
    into = f'echo $$ >{units.apps}/cgroup.procs && exec "$@"'
    with subprocess.Popen(["/bin/sh", "-c", into, "sh", "sleep", "infinity"]) as holder:
        try:
            yield units
        finally:
            cgroup.kill(units.apps)
            holder.kill()
            holder.wait()
            end_s = time.monotonic() + _EMPTY_WITHIN_S
            while not cgroup.is_empty(top) and time.monotonic() < end_s:
                time.sleep(0.01)
            with suppress(OSError):
                cgroup.remove(top)
