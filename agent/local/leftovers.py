"""Ends the instances whose agent could not: it was killed, and nobody started it again.

They are known by their environment, which names their folder below the hosts' folder of this very `up`. Synchronous.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def end(hosts_folder: Path) -> list[int]:
    """Kill every instance of the hosts below `hosts_folder`; gives their pids."""
    mark = f"\0ROLLWAY_DRAIN_FILE={hosts_folder}/".encode()
    return [pid for pid in _pids() if _kill(pid, mark)]


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208 - names are all it takes


def _kill(pid: int, mark: bytes) -> bool:
    """Kill the process if it bears `mark`: looked at again once it is held, for its number may mean another by then."""
    if not _bears(pid, mark):
        return False
    with suppress(ProcessLookupError):
        held = os.pidfd_open(pid)
        try:
            if _bears(pid, mark):
                signal.pidfd_send_signal(held, signal.SIGKILL)
                return True
        finally:
            os.close(held)
    return False


def _bears(pid: int, mark: bytes) -> bool:
    try:
        return mark in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
