"""What /proc tells of processes: when one started, who belongs to a tree, who owns a socket.

Rules: a process that goes while it is looked at is left out, not an error; so is what may not be read. That there is
no descriptor left to look with is an error: nobody is gone because of it (but for what is for people). A number names
a process only together with its start time. These walks cost time in proportion to the machine's processes: from the
event loop they are called through `anyio.to_thread`.
"""

import errno
import os
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct

K = TypeVar("K")

_PROC: Final = Path("/proc")
_COMMAND_CHARACTERS_MAX: Final = 200
_READ_BYTES: Final = 1 << 16
_LOOK_AGAIN_S: Final = 0.001
_LOOKS_MAX: Final = 1_000
"""An execve(2) takes less, on a machine that has much else to do as well."""
_LOOKS_AT_NOTHING: Final = 2
"""For a moment of an execve(2) a process has an environment of no length, as one has that was given none."""


class Process(Struct, frozen=True):
    """One process as it was when it was looked at; `start_time` in clock ticks since boot."""

    pid: int
    state: str
    parent: int
    session: int
    start_time: int


class Stat(Struct, frozen=True, kw_only=True):
    """What one process uses; its time in ticks, that of children that it has waited for with it."""

    cpu_ticks: int
    threads: int
    rss_pages: int


class Owner(Struct, frozen=True):
    """A process that holds a socket, for people."""

    pid: int
    command: str


def process(pid: int) -> Process | None:
    """Give what /proc says of one process, zombies too, or None where there is none."""
    if (fields := _stat_fields(pid)) is None:
        return None
    return Process(pid, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def stat(pid: int) -> Stat | None:
    """What one process uses, or None where there is none."""
    if (fields := _stat_fields(pid)) is None:
        return None
    return Stat(cpu_ticks=sum(map(int, fields[11:15])), threads=int(fields[17]), rss_pages=int(fields[21]))


def start_time(pid: int) -> int | None:
    found = process(pid)
    return found.start_time if found else None


def processes() -> dict[int, Process]:
    """All processes of the machine by pid."""
    return {pid: found for pid in _pids() if (found := process(pid))}


class Family(Struct, frozen=True):
    """How those who belong together are known: `roots` and their descendants, a session, a mark."""

    roots: tuple[int, ...]
    session: int
    mark: str


def families(wanted: Sequence[Family], apart: str = "") -> list[list[Process]]:
    """The living processes of each, in one walk.

    `mark` is an entry of their environment, NAME=VALUE; who has one that begins with `apart` does not carry it. None of
    the three is enough: a daemon leaves the session and loses its parents, a child may empty its environment. Their
    descendants belong to it too. The caller itself, and what is above it, never does.
    """
    marks = {family.mark.encode() for family in wanted}
    found: dict[int, Process] = {}
    carriers = defaultdict[bytes, set[int]](set)
    sessions, children = defaultdict[int, set[int]](set), defaultdict[int, set[int]](set)

    def walk() -> Iterator[int]:
        for one in filter(None, map(process, _pids())):
            found[one.pid] = one
            sessions[one.session].add(one.pid)
            children[one.parent].add(one.pid)
            yield one.pid

    for pid, environ in _environs(walk()):  # each looked at whole: it may have left its work to a child then
        for mark in _marks_in(environ, marks, apart.encode()):
            carriers[mark].add(pid)
    kept = _ancestors(os.getpid(), found)
    belong: list[list[Process]] = []
    for family in wanted:
        members = {*family.roots, *sessions.get(family.session, ()), *carriers.get(family.mark.encode(), ())} - kept
        grown = members
        while grown := {child for one in grown for child in children.get(one, ())} - members - kept:
            members = members | grown
        belong.append([found[pid] for pid in sorted(members) if pid in found and found[pid].state not in "ZX"])
    return belong


def trees(known: Mapping[K, tuple[int, str]]) -> dict[K, list[int]]:
    """The same for many instances in one walk, as numbers: each by its main process, which leads its session, and mark.

    For people: who seems to belong to two is counted with one of them.
    """
    found = processes() if known else {}
    owners = {pid: key for key, (pid, _) in known.items() if pid in found}
    sessions = {pid: key for key, (pid, _) in known.items()}
    marks = {mark.encode(): key for key, (_, mark) in known.items()}
    kept = _ancestors(os.getpid(), found)
    others = [one for one in found.values() if one.pid not in owners and one.pid not in kept]
    owners |= {one.pid: sessions[one.session] for one in others if one.session in sessions}
    for pid, environ in _environs(one.pid for one in others if one.session not in sessions):
        owners.update((pid, marks[mark]) for mark in _marks_in(environ, marks))
    while grown := {
        one.pid: owners[one.parent]
        for one in found.values()
        if one.pid not in owners and one.pid not in kept and one.parent in owners
    }:
        owners |= grown
    members: dict[K, list[int]] = {key: [] for key in known}
    for pid, key in owners.items():
        if found[pid].state not in "ZX":
            members[key].append(pid)
    return members


def marks(prefix: str) -> set[str]:
    """The entries of the environments of all living processes that begin so: who is there, whatever is on record."""
    return {entry for _, environ in _environs(_pids()) for entry in _entries(environ, prefix)}


def bearers(prefix: str) -> list[Process]:
    """Of whom an entry of the environment begins so."""
    bear = [pid for pid, environ in _environs(_pids()) if _entries(environ, prefix)]
    return [found for found in map(process, bear) if found is not None]


def _entries(environ: bytes, prefix: str) -> list[str]:
    if prefix.encode() not in environ:
        return []
    return [entry for entry in environ.decode(errors="replace").split("\0") if entry.startswith(prefix)]


def command(pid: int) -> str:
    """The command line of a process, shortened, or its name where it has none."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
        words = words or (_PROC / str(pid) / "comm").read_bytes().strip()
    except OSError:
        return ""
    return words.decode(errors="replace")[:_COMMAND_CHARACTERS_MAX]


def socket_inodes(pids: Collection[int]) -> set[int]:
    """The inodes of all sockets that these processes hold."""
    return {inode for pid in pids for _, inode in sockets(pid)}


def owners(inodes: Collection[int]) -> dict[int, Owner]:
    """For each of these sockets one process that holds it; without root only one's own processes can be seen."""
    wanted, found = set(inodes), dict[int, Owner]()
    for pid in _pids():
        for inode in wanted.intersection(inode for _, inode in sockets(pid)) - found.keys():
            found[inode] = Owner(pid, command(pid))
        if len(found) == len(wanted):
            break
    return found


def is_shortage(error: OSError) -> bool:
    """Whether we, or the machine, have no descriptor left: it tells nothing of what was asked for."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def _pids() -> Iterator[int]:
    """The newest first, whose numbers are the highest: they are the ones that may be others in a moment."""
    names = os.listdir(_PROC)  # noqa: PTH208 - Path.iterdir costs ten times as much
    return (int(name) for name in reversed(names) if name.isdigit())


def _stat_fields(pid: int) -> list[str] | None:
    if (read := _read(pid, "stat")) is None:
        return None
    text = read.decode("latin-1")
    return text[text.rindex(")") + 2 :].split()  # the name before may hold spaces and parentheses


def _marks_in(environ: bytes, marks: Collection[bytes], apart: bytes = b"") -> Collection[bytes]:
    """Which of these it carries."""
    entries = environ.split(b"\0")
    carried = [entry for entry in entries if entry in marks]
    return () if carried and apart and any(entry.startswith(apart) for entry in entries) else carried


def _environs(pids: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """The environments of all that have one to show, each read at once.

    While a process executes a program it has none: that is waited out, for all such ones together.
    """
    for look in range(_LOOKS_MAX):
        later: list[int] = []
        for pid in pids:
            if environ := _read(pid, "environ"):
                yield pid, environ
            elif environ is not None and (_is_executing(pid) or (look < _LOOKS_AT_NOTHING and _has_program(pid))):
                later.append(pid)
        if not later:
            return
        pids = later
        threading.Event().wait(_LOOK_AGAIN_S)


def _is_executing(pid: int) -> bool:
    """Whether execve(2) has taken its memory and not yet said where the environment is, or has meanwhile."""
    fields = _stat_fields(pid)
    if fields is None or not _has_program(pid):
        return False
    start, end = int(fields[47]), int(fields[48])
    return start == 0 or start != end


def _has_program(pid: int) -> bool:
    """Unlike the kernel's own, and unlike a zombie."""
    try:
        return bool(os.readlink(f"{_PROC}/{pid}/exe"))  # noqa: PTH115 - as above
    except OSError:
        return False


def _read(pid: int, name: str) -> bytes | None:
    """A file of a process; None where it is gone, or may not be read. Raises OSError where no descriptor is left."""
    try:
        fd = os.open(f"{_PROC}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if is_shortage(error):
            raise
        return None
    try:
        return b"".join(iter(lambda: os.read(fd, _READ_BYTES), b""))
    except OSError:
        return None
    finally:
        os.close(fd)


def _ancestors(pid: int, found: dict[int, Process]) -> set[int]:
    above = {pid}
    while (here := found.get(pid)) and here.parent not in above:
        pid = here.parent
        above.add(pid)
    return above


def sockets(pid: int) -> Iterator[tuple[int, int]]:
    """The sockets that a process holds: number and inode."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208 - as above
    except OSError as error:
        if is_shortage(error):
            raise
        return
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - as above
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(name), int(target[8:-1])
