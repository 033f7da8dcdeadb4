"""Runtime records: which process was started for which instance, so that the next agent knows what an earlier one left.

Rules: written before each launch, again with the pid after it, removed when the tree is gone. What a record names is
ended before anything is launched; a record of another boot names nothing. Blocking: callers run these in a thread.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from agent.linux import atomic, procfs
from agent.linux.killtree import Tree

NO_PID: Final = -1
"""Names no process and no session, whereas 0 would name everybody's."""


class Record(Struct, frozen=True, kw_only=True):
    """`pid` is None from the decision to launch until the process is known; then only its mark can find it."""

    key: str
    release: str
    boot_id: str
    mark: str
    pid: int | None = None
    start_time: int | None = None
    cgroup: str | None = None


class Records:
    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder

    def write(self, record: Record) -> bool:
        """Whether it is written. A full disk keeps nobody from running: it only hides them from the next agent."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic.write_atomically(self._folder / f"{record.key}.json", msgspec.json.encode(record))
        except OSError:
            return False
        return True

    def remove(self, key: str) -> None:
        """What stays on a disk that takes nothing names a process that is gone."""
        with contextlib.suppress(OSError):
            (self._folder / f"{key}.json").unlink(missing_ok=True)

    def left(self, boot_id: str) -> Iterator[tuple[Path, Tree | None]]:
        """What lies there, each with the tree to end; None: nothing of it can live any more, or nobody can read it."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                record = msgspec.json.decode(atomic.read(path), type=Record)
            except (OSError, msgspec.DecodeError, UnicodeError):
                yield path, None
                continue
            yield path, _tree(record) if record.boot_id == boot_id else None


def _tree(record: Record) -> Tree:
    """Its main process counts only if the number still means it, or means nobody (its session may live on)."""
    pid = NO_PID
    if record.pid is not None and procfs.start_time(record.pid) in (None, record.start_time):
        pid = record.pid
    return Tree(pid=pid, mark=record.mark, cgroup=Path(record.cgroup) if record.cgroup else None)
