"""Ends the instances whose agent could not: it was killed, and nobody started it again.

They are known by their environment, which names their folder below the hosts' folder of this very `up`. Looked for
again until none is found: what forks meanwhile is found by the next look. Synchronous.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_END_MAX_S: Final = 5.0
_LOOK_S: Final = 0.01


def mark(hosts_folder: Path) -> str:
    """What an entry of the environment of each instance of the hosts below `hosts_folder` begins with."""
    return f"ROLLWAY_DRAIN_FILE={hosts_folder}/"


def end(hosts_folder: Path) -> list[int]:
    """Kill every instance of the hosts below `hosts_folder`; gives the pids of all that were killed."""
    borne, until_s = b"\0" + mark(hosts_folder).encode(), time.monotonic() + _END_MAX_S
    killed: set[int] = set()
    while (found := {pid for pid in _pids() if _kill(pid, borne)}) and time.monotonic() < until_s:
        killed |= found
        time.sleep(_LOOK_S)
    return sorted(killed | found)


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208 - names are all it takes


def _kill(pid: int, borne: bytes) -> bool:
    """Kill the process if it is marked: looked at again once it is held, for its number may mean another by then."""
    if not bears(pid, borne):
        return False
    with suppress(ProcessLookupError):
        held = os.pidfd_open(pid)
        try:
            if bears(pid, borne):
                signal.pidfd_send_signal(held, signal.SIGKILL)
                return True
        finally:
            os.close(held)
    return False


def bears(pid: int, borne: bytes) -> bool:
    """Whether an entry of its environment begins so; `borne` is a NUL and that beginning."""
    try:
        return borne in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
