"""Runtime records: what a next agent must know of each instance and admin process to take it up, or to end it.

Rules: written before each launch and before anything else that the instance's state decides; one file each in the run
folder, whole or not there; a record of another boot means nothing. What cannot be read is set aside, never trusted: its
process is known by its mark alone and is ended. Blocking: callers run these in a thread.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from agent.decisions.process.state import InstanceMachine, durable
from agent.linux import atomic, clock
from agent.linux.killtree import NO_PID, Tree
from agent.linux.removal import remove_tree
from agent.model.assignment import ReleaseRef
from agent.model.process import ProcessType
from agent.model.units import Milliseconds
from agent.supervisor.launchable import InstanceKey, Launchable, Target

RECORD_BYTES_MAX: Final = 1 << 20


class Kept(Struct, frozen=True, kw_only=True):
    """An instance, but for its sockets, which the FD store keeps, and its config, which no disk may hold."""

    release: ReleaseRef
    type: ProcessType
    cwd: str
    addresses: tuple[str, ...] = ()
    port: int | None = None
    target: Target | None = None
    linger_ms: Milliseconds | None = None
    machine: InstanceMachine
    signalled: bool = True
    """False from the decision to send the stop signal until it was sent."""


class Record(Struct, frozen=True, kw_only=True):
    """`pid` is None from the decision to launch until the process is known; then only its mark can find it.

    It is that of the process that was launched; `main_pid` that of another one which has become the main one since.
    """

    key: InstanceKey
    boot_id: str
    mark: str
    pid: int | None = None
    start_time: int | None = None
    main_pid: int | None = None
    main_start_time: int | None = None
    cgroup: str | None = None
    instance: Kept | None = None
    """None: an admin process, which does not outlive its agent."""

    @property
    def tree(self) -> Tree:
        pid = NO_PID if self.pid is None else self.pid
        return Tree(pid=pid, start_time=self.start_time, mark=self.mark, cgroup=self.cgroup or None, main=self.main)

    @property
    def main(self) -> tuple[int, int] | None:
        if self.main_pid is None or self.main_start_time is None:
            return None
        return self.main_pid, self.main_start_time


def record_of(given: Launchable, tree: Tree, machine: InstanceMachine, *, is_started: bool, signalled: bool) -> Record:
    """What a next agent is to know of an instance; `tree` is that of its process where one is started."""
    main_pid, main_start_time = (is_started and tree.main) or (None, None)
    return Record(
        key=given.key,
        boot_id=clock.boot_id(),
        mark=tree.mark,
        pid=tree.pid if is_started else None,
        start_time=tree.start_time if is_started else None,
        main_pid=main_pid,
        main_start_time=main_start_time,
        cgroup=tree.cgroup,
        instance=Kept(
            release=given.release,
            type=given.type,
            cwd=given.cwd,
            addresses=given.addresses,
            port=given.port,
            target=given.target,
            linger_ms=given.linger_ms,
            machine=durable(machine),
            signalled=signalled,
        ),
    )


class Unreadable(Struct, frozen=True):
    """A record that was set aside: whose it is by its name, if that names anybody, and why."""

    path: Path
    key: InstanceKey | None
    reason: str


encoded: Final = msgspec.json.Encoder().encode
"""A record as it is written."""


class Records:
    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self._pages: Final[set[InstanceKey]] = set()
        """Whose record is one page, written by us."""

    def write(self, record: Record) -> bool:
        """Whether it is written. A full disk keeps nobody from running: it only hides them from the next agent."""
        return self.put(record.key, encoded(record))

    def put(self, key: InstanceKey, data: bytes) -> bool:
        """The same, `encoded` already."""
        try:
            try:
                self._write(key, data)
            except FileNotFoundError:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._write(key, data)
        except OSError:
            return False
        return True

    def _write(self, key: InstanceKey, data: bytes) -> None:
        # Not forced to the disk: a record is for a next agent of this boot, and is nobody's after a power loss.
        path, is_page = f"{self._folder}/{key}.json", len(data) <= atomic.PAGE_BYTES
        if is_page:
            data = data.ljust(atomic.PAGE_BYTES)
            if key in self._pages:
                with contextlib.suppress(FileNotFoundError):  # then it is made anew
                    atomic.write_page(path, data)
                    return
        self._pages.discard(key)
        atomic.write_atomically(path, data, lasting=False)
        if is_page:
            self._pages.add(key)

    def remove(self, key: InstanceKey) -> None:
        """What stays on a disk that takes nothing names a process that is gone."""
        self._pages.discard(key)
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def left(self, boot_id: str) -> Iterator[Record | Unreadable]:
        """What an earlier agent of this boot left, in the order of the names."""
        for path in sorted(self._folder.glob("*.json")):
            record = _read(path)
            if isinstance(record, Record) and record.boot_id != boot_id:
                path.unlink(missing_ok=True)
                continue
            if isinstance(record, Unreadable):
                _set_aside(path)
            yield record

    def _path(self, key: InstanceKey) -> Path:
        return self._folder / f"{key}.json"


def _set_aside(path: Path) -> None:
    """What cannot be moved stays, and is met again by the next agent: no reason not to start."""
    aside = path.with_suffix(".unreadable")
    with contextlib.suppress(OSError):
        remove_tree(aside)
    with contextlib.suppress(OSError):
        path.replace(aside)


def _read(path: Path) -> Record | Unreadable:
    key = InstanceKey.parse(path.stem)
    try:
        record = msgspec.json.decode(atomic.read(path, RECORD_BYTES_MAX), type=Record)
    except OSError as error:
        return Unreadable(path, key, str(error.strerror))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return Unreadable(path, key, str(error))
    return record if record.key == key else Unreadable(path, key, f"it is the record of {record.key}")
