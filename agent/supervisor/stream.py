"""Takes the output of one process from its FIFO, and makes it into records that are committed at once.

Rules: bytes that are taken are in records before anything else can happen (`logs` says how a next agent goes on). Where
there is no room for records nothing is taken, or it is counted as dropped.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from agent.linux import clock
from agent.supervisor.launchable import InstanceKey
from agent.supervisor.logs import Lines, Logs, Mark, Marks
from agent.supervisor.pipes import Pipe

_LAST_BYTES: Final = 4 * 1024 * 1024
"""At most so much is read once the main process is gone: what survived SIGKILL may write for ever."""


class Stream:
    """Reads one FIFO, for one process, whenever the loop tells that there is something: no task waits for it.

    The FIFO never ends by itself: `finish` ends it. `tasks` owns the wait for room, and hears of a failure.
    """

    def __init__(
        self,
        logs: Logs,
        key: InstanceKey,
        pipe: Pipe,
        *,
        marks: Marks,
        lines: Lines,
        tap: Callable[[bytes], None],
        tasks: TaskGroup,
    ) -> None:
        self._logs = logs
        self._key = key
        self._pipe = pipe
        self._marks = marks
        self._lines = lines
        self._tap = tap
        self._tasks = tasks
        self._finishing = False
        self._wait: anyio.CancelScope | None = None
        self._waited = anyio.Event()

    def begin(self) -> None:
        """Make records of what an earlier agent had taken and not committed, and read on."""
        used = self._marks[self._pipe.name].used
        if not self._marks.known or not 0 <= self._pipe.taken - used <= _LAST_BYTES:
            used = self._pipe.taken
        self._pipe.begin_at(used)
        self._take_when_there_is_room(self._pipe.read(used))

    def let_go(self) -> None:
        """Read no more: the next agent goes on here."""
        asyncio.get_running_loop().remove_reader(self._pipe.reader)

    def _watch(self) -> None:
        asyncio.get_running_loop().add_reader(self._pipe.reader, self._read)

    def _read(self) -> None:
        """One chunk at a time: a flood from one instance must not keep the loop from all others."""
        try:
            if (has_room := self._logs.room_now(self._key)) is None:
                self.let_go()
                self._take_when_there_is_room(b"")
            else:
                self._take(has_room=has_room)
        except BlockingIOError:
            pass
        except OSError as error:
            self.let_go()
            self._tasks.start_soon(_fail, error)

    def _take(self, *, has_room: bool) -> int:
        """Make records of what waits, BlockingIOError where nothing does; how many bytes that were.

        There is no await after the bytes are taken: whoever ends us finds them in records.
        """
        chunk = self._pipe.take()
        self._tap(chunk)
        self._commit(self._lines.feed(chunk, clock.timestamp()), has_room=has_room)
        return len(chunk)

    def _take_when_there_is_room(self, left: bytes) -> None:
        if left or self._logs.room_now(self._key) is None:
            self._wait, self._waited = anyio.CancelScope(), anyio.Event()
            self._tasks.start_soon(self._wait_for_room, self._wait, left)
        else:
            self._watch()

    async def _wait_for_room(self, wait: anyio.CancelScope, left: bytes) -> None:
        try:
            with wait:
                has_room = await self._logs.room(self._key)
                if left:
                    self._commit(self._lines.feed(left, clock.timestamp()), has_room=has_room)
                if not self._finishing:
                    self._watch()
        finally:
            self._wait = None
            self._waited.set()

    def _commit(self, records: Sequence[bytes], *, has_room: bool, is_last: bool = False) -> None:
        used = self._pipe.taken - self._lines.rest_bytes
        dropped = self._marks[self._pipe.name].dropped
        if not has_room:
            dropped += sum(part.count(b"\n") for part in records)
            records = []
        elif dropped and (records or is_last):
            records = [self._lines.gap(dropped, clock.timestamp()), *records]
            dropped = 0
        self._marks.commit(self._pipe.name, Mark(used=used, inside=self._lines.inside, dropped=dropped), records)
        self._pipe.forget(used)
        if records:
            self._logs.committed(self._key, records)

    async def finish(self) -> None:
        """The process is gone: read to the end what it wrote."""
        self._finishing = True
        self.let_go()
        if self._wait is not None:
            await self._waited.wait()
        left = _LAST_BYTES
        while left > 0:
            has_room = await self._logs.room(self._key)
            try:
                left -= self._take(has_room=has_room)
            except BlockingIOError:
                break
            await checkpoint()
        # The last words, and what says how many are missing before them, are few: they need no room.
        self._commit(self._lines.end(clock.timestamp()), has_room=True, is_last=True)

    async def abandon(self) -> None:
        """Nobody takes the output: leave the rest unread. Does nothing once all was read."""
        self.let_go()
        if self._wait is not None:
            self._wait.cancel()
            await self._waited.wait()


async def _fail(error: OSError) -> None:
    raise error
