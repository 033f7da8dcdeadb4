"""From an instance's FIFO to the agent's stdout: bytes taken, made into records, committed, offered to be sent.

Each instance has one journal for both its streams, from its first byte on. Records and how far each stream has come are
committed in one store (`Marks`), so that a next agent neither loses nor doubles a line, wherever this one was killed. A
stream takes its next bytes only while its journal has room: a slow reader slows the app, and memory stays bounded; or,
where the host is told to drop, records that find no room are counted and a record says how many. What was sent is kept
for a while as the last lines of the instance; records of several are ordered by their time.
"""

import heapq
import os
import struct
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol

import anyio
from msgspec import Struct

from agent.errors import unreachable
from agent.linux.fdstore import FdStore, Inherited
from agent.linux.journal import KEPT_BYTES, Journal
from agent.model.ids import AppName, EnvironmentName, ReleaseName
from agent.supervisor.folder import STREAMS
from agent.supervisor.launchable import InstanceKey
from agent.wire.logline import Fed, LogLines, Source

FOLLOWER_BYTES_MAX: Final = 1024 * 1024
ENDED_JOURNALS_MAX: Final = 64
"""Instances that are gone whose last lines can still be read."""
_SUFFIX: Final = "/journal"
_TIME: Final = len(b'{"ts":"2025-01-01T00:00:00.000Z"')


class Outlet(Protocol):
    """Where journals are sent."""

    def offer(self, journal: Journal) -> None:
        """There are records to send."""

    async def room(self, journal: Journal) -> None:
        """Wait until the journal may be added to."""

    def when_room(self, journal: Journal, call: Callable[[], None]) -> None:
        """Have it called, once, as soon as the journal may be added to."""


class Lines(Protocol):
    """Cuts one stream into records, each of them a whole line; `LogLines` says what each is for."""

    inside: bool

    def feed(self, data: memoryview, ts: str, out: memoryview) -> Fed: ...

    def end(self, rest: bytes, ts: str) -> bytes: ...

    def gap(self, dropped: int, ts: str) -> bytes: ...


LinesOf = Callable[[Source, bool], Lines]
"""Gives what cuts the stream of that source; whether its first byte continues a line of which a part is out."""


def as_json(source: Source, inside: bool) -> Lines:  # noqa: FBT001 - as `LinesOf` says
    return LogLines(source, inside=inside)


class Mark(Struct, frozen=True, kw_only=True):
    """How far one stream of a process has become records."""

    used: int = 0
    """Bytes, of all that were ever taken from it."""
    inside: bool = False
    """Whether the next byte continues a line of which a part is out already."""
    dropped: int = 0
    """Records that found no room, and of which no record tells yet."""


class Marks:
    """How far both streams of one process have come: the note of the instance's journal."""

    _FORM: Final = struct.Struct("=" + "Q?Q" * len(STREAMS))

    def __init__(self, journal: Journal | None) -> None:
        """None: there is none yet; `open` brings it, before anything is committed."""
        self._journal = journal
        note = journal.note if journal is not None else b""
        self.known = len(note) == self._FORM.size
        """Whether an earlier agent has said; otherwise what was taken before is nobody's business any more."""
        values = self._FORM.unpack(note) if self.known else (0, False, 0) * len(STREAMS)
        self._of = {
            stream: Mark(used=values[3 * place], inside=bool(values[3 * place + 1]), dropped=values[3 * place + 2])
            for place, stream in enumerate(STREAMS)
        }

    def __getitem__(self, stream: str) -> Mark:
        return self._of[stream]

    @property
    def journal(self) -> Journal:
        if self._journal is None:
            unreachable("a commit before there is a journal")
        return self._journal

    def open(self, journal: Journal) -> None:
        """Have a next agent know how far the streams are: before the first byte is taken."""
        if self._journal is None:
            self._journal = journal
            journal.commit(0, self._note())

    def commit(self, stream: str, mark: Mark, count: int) -> None:
        """So many bytes in the journal's room are records, and the stream has come as far as `mark` says."""
        self._of[stream] = mark
        self.journal.commit(count, self._note())

    def begin(self, taken: Mapping[str, int]) -> None:
        """A new process: what was taken from its streams before is not its own."""
        self._of = {name: Mark(used=taken.get(name, 0), dropped=mark.dropped) for name, mark in self._of.items()}
        self.known = True
        if self._journal is not None:
            self._journal.commit(0, self._note())

    def _note(self) -> bytes:
        marks = self._of.values()
        return self._FORM.pack(*(value for mark in marks for value in (mark.used, mark.inside, mark.dropped)))


class Follower:
    """Somebody who reads along. Bounded: records that come while it is full are counted and left out."""

    def __init__(self, matches: Callable[[InstanceKey], bool]) -> None:
        self.matches: Final = matches
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._news = anyio.Event()

    def offer(self, records: bytes) -> None:
        if self._bytes + len(records) > FOLLOWER_BYTES_MAX:
            self._dropped += records.count(b"\n")
        else:
            self._chunks.append(records)
            self._bytes += len(records)
        self._news.set()

    async def take(self) -> tuple[list[bytes], int]:
        """Wait for records; those that came, and how many were left out since the last time."""
        await self._news.wait()
        records = b"".join(self._chunks).splitlines()
        dropped, self._dropped = self._dropped, 0
        self._chunks.clear()
        self._bytes, self._news = 0, anyio.Event()
        return records, dropped


class Logs:
    """The journals of all instances."""

    def __init__(
        self,
        outlet: Outlet,
        store: FdStore,
        inherited: Inherited,
        *,
        drops: bool = False,
        kept_bytes: int = KEPT_BYTES,
        lines: LinesOf = as_json,
    ) -> None:
        self.lines: Final = lines
        """In which form records are."""
        self.drops: Final = drops
        """Whether what finds no room is dropped and counted, instead of keeping its writer waiting."""
        self._kept_bytes: Final = kept_bytes
        self._outlet: Final = outlet
        self._store: Final = store
        self._journals: dict[InstanceKey, Journal] = {}
        self._ended: OrderedDict[InstanceKey, None] = OrderedDict()
        self._followers: list[Follower] = []
        self._unkept: list[InstanceKey] = []
        self._to_drop: list[str] = []
        self._one_keeps = threading.Lock()
        for name in inherited.names():
            self._adopt(name, inherited)

    def _adopt(self, name: str, inherited: Inherited) -> None:
        key = InstanceKey.parse(name.removesuffix(_SUFFIX)) if name.endswith(_SUFFIX) else None
        fd = inherited.take(name) if key is not None else None
        if key is None or fd is None:
            return
        journal = Journal.adopt(fd)
        if journal is None:
            os.close(fd)
            self._to_drop.append(name)
            return
        self._journals[key] = journal
        self._ended[key] = None
        self._outlet.offer(journal)

    def found(self, key: InstanceKey) -> Journal | None:
        """The instance's journal, where it has one: it is in use, now or again."""
        self._ended.pop(key, None)
        return self._journals.get(key)

    def journal(self, key: InstanceKey) -> Journal:
        """The same, made when it has none; `keep` then makes it outlive us. Raises OSError."""
        if (journal := self.found(key)) is None:
            journal = self._journals[key] = Journal.create(f"{key}{_SUFFIX}", self._kept_bytes)
            self._unkept.append(key)
        return journal

    def keep(self) -> None:
        """Bring the FD store up to date. May wait for the service manager: call it in a thread."""
        with self._one_keeps:  # so that all is kept by the end of it, whoever has begun
            while self._to_drop:
                self._store.drop(self._to_drop.pop())
            while self._unkept:
                key = self._unkept.pop()
                if (journal := self._journals.get(key)) is not None:  # else it has ended meanwhile
                    self._store.put(f"{key}{_SUFFIX}", journal.fd)

    def committed(self, key: InstanceKey, records: memoryview) -> None:
        """Show to followers, and have sent, what was just committed."""
        for follower in self._followers:
            if follower.matches(key):
                follower.offer(bytes(records))
        self._outlet.offer(self._journals[key])

    def room_now(self, key: InstanceKey) -> bool | None:
        """Whether there is room for records of the instance; None: that is to be waited for."""
        if self._journals[key].is_full:
            return False if self.drops else None
        return True

    async def room(self, key: InstanceKey) -> None:
        """Wait until there is room for records of the instance, unless they are dropped without."""
        if not self.drops:
            await self._outlet.room(self._journals[key])

    def when_room(self, key: InstanceKey, call: Callable[[], None]) -> None:
        """Have it called, once, as soon as there is room for records of the instance."""
        self._outlet.when_room(self._journals[key], call)

    def end(self, key: InstanceKey) -> None:
        """The instance is gone; its last records stay, until they are sent and too many others are gone as well."""
        if key in self._journals:
            self._ended[key] = None
        sent = [one for one in self._ended if not self._journals[one].unsent]
        for one in sent[: max(0, len(self._ended) - ENDED_JOURNALS_MAX)]:
            del self._ended[one]
            self._journals.pop(one).close()
            self._to_drop.append(f"{one}{_SUFFIX}")

    def tail(self, matches: Callable[[InstanceKey], bool], lines: int) -> list[bytes]:
        kept = [journal.last().splitlines() for key, journal in self._journals.items() if matches(key)]
        merged = list(heapq.merge(*kept, key=lambda record: record[:_TIME]))
        return merged[-lines:] if lines > 0 else []

    @contextmanager
    def follow(self, matches: Callable[[InstanceKey], bool]) -> Iterator[Follower]:
        follower = Follower(matches)
        self._followers.append(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)


def source_of(key: InstanceKey, release: ReleaseName, pid: int, stream: str) -> Source:
    return Source(
        app=key.app,
        env=key.environment,
        release=release,
        process=key.process,
        instance=key.name,
        pid=pid,
        stream=stream,
    )


def matching(
    app: AppName, environment: EnvironmentName, process: str | None, slot: int | None
) -> Callable[[InstanceKey], bool]:
    """Instances of an app and environment, of one process type or of all, of one slot or of all."""

    def matches(key: InstanceKey) -> bool:
        return (
            (key.app, key.environment) == (app, environment)
            and process in (None, key.process)
            and slot in (None, key.slot)
        )

    return matches
