"""From an instance's FIFO to the agent's stdout: lines read, made into records, kept for a while, passed on.

Rules: a chunk is read only when the one before it was taken, so that a slow reader slows the app and memory stays
bounded; nothing is lost silently: what a follower could not take is counted. Records of all instances have one order,
that of their arrival.
"""

import heapq
import os
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from agent.linux import clock
from agent.model.ids import AppName, EnvironmentName
from agent.supervisor.launchable import InstanceKey
from agent.wire.logline import LogLines

Sink = Callable[[bytes], Awaitable[None]]
"""Takes whole records; comes back when they are on their way."""

CHUNK_BYTES: Final = 64 * 1024
FOLLOWER_BYTES_MAX: Final = 1024 * 1024
ENDED_RINGS_MAX: Final = 64
"""Instances that are gone whose last lines can still be read."""
_LAST_BYTES: Final = 4 * 1024 * 1024
"""At most so much is read once the main process is gone: what survived SIGKILL may write for ever."""


class Ring:
    """The last records of one instance, bounded in bytes; whole chunks as they came, each with its number."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._bytes = 0

    def append(self, number: int, records: bytes) -> None:
        if len(records) > self._bytes_max:
            records = records[records.find(b"\n", len(records) - self._bytes_max - 1) + 1 :]
        if not records:
            return
        self._chunks.append((number, records))
        self._bytes += len(records)
        while self._bytes > self._bytes_max:
            self._bytes -= len(self._chunks.popleft()[1])

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        return iter(self._chunks)


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
    """Where the records of all instances pass."""

    def __init__(self, sink: Sink, ring_bytes: int) -> None:
        self._sink: Final = sink
        self._ring_bytes: Final = ring_bytes
        self._rings: OrderedDict[InstanceKey, Ring] = OrderedDict()
        self._ended: OrderedDict[InstanceKey, None] = OrderedDict()
        self._followers: list[Follower] = []
        self._number = 0

    async def take(self, key: InstanceKey, records: bytes) -> None:
        """Keep the records, show them to followers, and wait until the sink has them."""
        self._number += 1
        if key not in self._rings:
            self._rings[key] = Ring(self._ring_bytes)
        self._ended.pop(key, None)
        self._rings[key].append(self._number, records)
        for follower in self._followers:
            if follower.matches(key):
                follower.offer(records)
        await self._sink(records)

    def end(self, key: InstanceKey) -> None:
        """The instance is gone; its last records stay, until too many others are gone as well."""
        if key in self._rings:
            self._ended[key] = None
        while len(self._ended) > ENDED_RINGS_MAX:
            del self._rings[self._ended.popitem(last=False)[0]]

    def tail(self, matches: Callable[[InstanceKey], bool], lines: int) -> list[bytes]:
        rings = [ring.chunks() for key, ring in self._rings.items() if matches(key)]
        merged = b"".join(records for _, records in heapq.merge(*rings)).splitlines()
        return merged[-lines:] if lines > 0 else []

    @contextmanager
    def follow(self, matches: Callable[[InstanceKey], bool]) -> Iterator[Follower]:
        follower = Follower(matches)
        self._followers.append(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)


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


class Stream:
    """Reads one FIFO, for one process, in a task of its own. The FIFO never ends by itself: `finish` ends it."""

    def __init__(
        self, reader: int, lines: LogLines, take: Callable[[bytes], Awaitable[None]], tap: Callable[[bytes], None]
    ) -> None:
        self._reader = reader
        self._lines = lines
        self._take = take
        self._tap = tap
        self._life = anyio.CancelScope()
        self._finishing = False
        self._waiting: anyio.CancelScope | None = None
        self._done = anyio.Event()

    async def run(self) -> None:
        try:
            with self._life:
                await self._read_all()
        finally:
            os.close(self._reader)
            self._done.set()

    async def _read_all(self) -> None:
        left = _LAST_BYTES
        while left > 0:
            try:
                chunk = os.read(self._reader, CHUNK_BYTES)
            except BlockingIOError:
                if self._finishing:
                    break
                with anyio.CancelScope() as self._waiting:
                    await anyio.wait_readable(self._reader)
                continue
            left -= len(chunk) if self._finishing else 0
            self._tap(chunk)
            await self._pass_on(self._lines.feed(chunk, clock.timestamp()))
            # A flood from one instance must not keep the loop from all others.
            await checkpoint()
        await self._pass_on(self._lines.end(clock.timestamp()))

    async def _pass_on(self, records: bytes) -> None:
        if records:
            await self._take(records)

    async def finish(self) -> None:
        """The process is gone: read to the end what it wrote. Waiting is the only thing that is cut short."""
        self._finishing = True
        if self._waiting is not None:
            self._waiting.cancel()
        await self._done.wait()

    def abandon(self) -> None:
        """Nobody takes the output: leave the rest unread. Does nothing once all was read."""
        self._life.cancel()
