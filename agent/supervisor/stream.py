"""Takes the output of one process from its FIFO, and makes it into records that are committed at once.

Rules: bytes that are taken stay in their intake until they are in records (`logs` says how a next agent goes on). Where
there is no room for records they wait there and nothing more is taken, or they are counted as dropped. Intake and
journal are made, and kept for a next agent, before the first byte is taken, as soon as they can be had.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from agent.linux import clock
from agent.linux.journal import APPEND_BYTES
from agent.linux.watch import ignore, watch
from agent.model.ids import ReleaseName
from agent.supervisor.launchable import InstanceKey
from agent.supervisor.logs import Lines, Mark, Marks, source_of
from agent.supervisor.pipes import Pipe
from agent.supervisor.surroundings import Surroundings

OPEN_WORDS: Final = 2
"""So many the service manager is told for the first byte: where it is taken to, and where its record will be."""
OPEN_AGAIN_S: Final = 0.25
_LAST_BYTES: Final = 4 * 1024 * 1024
"""At most so much is read once the main process is gone: what survived SIGKILL may write for ever."""


class Stream:
    """Reads one FIFO, for one process, whenever the loop tells that there is something: no task waits for it.

    The FIFO never ends by itself: `finish` ends it. `tasks` hears of a failure.
    """

    def __init__(
        self,
        around: Surroundings,
        process: tuple[InstanceKey, ReleaseName, int],
        pipe: Pipe,
        *,
        marks: Marks,
        tap: Callable[[bytes], None] | None,
        tasks: TaskGroup,
    ) -> None:
        """`process` is known by its instance, its release and its number."""
        self._around = around
        self._logs = around.logs
        self._key = process[0]
        self._process = process
        self._pipe = pipe
        self._marks = marks
        self._cut: Lines | None = None
        self._tap = tap
        self._tasks = tasks
        self._used = pipe.taken
        self._reads = True
        self._opened: anyio.Event | None = None

    def begin(self) -> None:
        """Make records of what an earlier agent had taken and not committed, and read on."""
        used = self._marks[self._pipe.name].used
        if self._marks.known and self._pipe.since(used) is not None:
            self._used = used
        self._go_on()

    def let_go(self) -> None:
        """Read no more: the next agent goes on here."""
        self._reads = False
        ignore(self._pipe.reader)

    def _go_on(self) -> None:
        """Make records of what is left, now or when there is room; then read on."""
        if not self._reads:
            return
        if self._use():
            watch(self._pipe.reader, self._read)
        else:
            self._logs.when_room(self._key, self._go_on)

    def _read(self) -> None:
        """One chunk at a time: a flood from one instance must not keep the loop from all others."""
        if not self._pipe.is_open and not self._is_opened_at_once():
            ignore(self._pipe.reader)
            self._opened = anyio.Event()
            self._tasks.start_soon(self._open)
            return
        try:
            self._take()
        except BlockingIOError:
            pass
        except OSError as error:
            self.let_go()
            self._tasks.start_soon(_fail, error)
        else:
            if not self._use():
                ignore(self._pipe.reader)
                self._logs.when_room(self._key, self._go_on)

    def _is_opened_at_once(self) -> bool:
        """Have where its output goes, if nobody has to be waited for."""
        with suppress(OSError):
            if self._around.is_done_at_once(OPEN_WORDS):
                self._marks.open(self._logs.journal(self._key))
                self._keep()
        return self._pipe.is_open

    async def _open(self) -> None:
        """Have it as soon as that can be; then read on."""
        while not self._pipe.is_open:
            try:
                self._marks.open(self._logs.journal(self._key))
                await self._around.do(OPEN_WORDS, self._keep)
            except OSError:  # no descriptors, or no memory: what it writes waits in its FIFO
                await anyio.sleep(OPEN_AGAIN_S)
        if self._opened is not None:
            self._opened.set()
        self._go_on()

    def _keep(self) -> None:
        self._logs.keep()
        self._pipe.open(self._around.store, str(self._key))

    def _take(self) -> None:
        """Take what waits, BlockingIOError where nothing does."""
        before = self._pipe.taken
        self._pipe.take()
        if self._tap is not None and (chunk := self._pipe.since(before)) is not None:
            self._tap(bytes(chunk))

    def _use(self) -> bool:
        """Make records of all lines that are taken; False where that has to wait for room."""
        while self._has_begun:
            has_room = self._logs.room_now(self._key)
            if has_room is None:
                return False
            data, ts, mark = self._left(), clock.timestamp(), self._marks[self._pipe.name]
            if has_room:
                room = self._marks.journal.room
                said = self._tell_dropped(room, mark.dropped, ts)
                fed = self._lines.feed(data, ts, room[said:])
                self._commit(fed.used, said + fed.made, dropped=0 if said else mark.dropped)
            else:
                nowhere = memoryview(bytearray(APPEND_BYTES))
                fed = self._lines.feed(data, ts, nowhere)
                self._commit(fed.used, 0, dropped=mark.dropped + bytes(nowhere[: fed.made]).count(b"\n"))
            if not fed.is_full:
                break
        return True

    @property
    def _lines(self) -> Lines:
        """What cuts it, once there is something to cut."""
        if self._cut is None:
            name = self._pipe.name
            self._cut = self._logs.lines(source_of(*self._process, name), self._marks[name].inside)
        return self._cut

    @property
    def _has_begun(self) -> bool:
        """Whether there is anything to tell, if only that a process before it lost some."""
        return self._pipe.is_open or self._marks[self._pipe.name].dropped > 0

    def _left(self) -> memoryview:
        """What is taken and in no record yet."""
        left = self._pipe.since(self._used)
        return memoryview(b"") if left is None else left

    def _tell_dropped(self, room: memoryview, dropped: int, ts: str) -> int:
        """Write the record that stands for those that found no room; how long it is, 0 where there are none."""
        record = self._lines.gap(dropped, ts) if dropped else b""
        if len(record) > len(room):
            return 0
        room[: len(record)] = record
        return len(record)

    def _commit(self, used: int, count: int, *, dropped: int) -> None:
        """Let `count` bytes that are in the journal's room be records, of so many bytes more."""
        self._used += used
        records = self._marks.journal.room[:count]
        self._marks.commit(self._pipe.name, Mark(used=self._used, inside=self._lines.inside, dropped=dropped), count)
        self._pipe.forget(self._used)
        if count:
            self._logs.committed(self._key, records)

    @property
    def has_left(self) -> bool:
        """Whether there is anything to `finish`."""
        return self._has_begun or self._opened is not None or self._pipe.has_more

    async def finish(self) -> None:
        """The process is gone, and nobody reads any more: read to the end what it wrote."""
        if self._opened is not None:
            await self._opened.wait()
        elif self._pipe.has_more and not self._pipe.is_open:
            await self._open()
        if not self._has_begun:
            return
        left = _LAST_BYTES
        while True:
            while not self._use():
                await self._logs.room(self._key)
            if left <= 0:
                break
            before = self._pipe.taken
            try:
                self._take()
            except BlockingIOError:
                break
            left -= self._pipe.taken - before
            await checkpoint()
        await self._logs.room(self._key)
        self._say_last_words()

    def _say_last_words(self) -> None:
        """They are few: where records are dropped, and the journal has no room for them either, they are counted."""
        rest, ts = bytes(self._left()), clock.timestamp()
        dropped, record = self._marks[self._pipe.name].dropped, self._lines.end(rest, ts)
        free = self._marks.journal.free
        if len(record) + self._tell_dropped(free, dropped, ts) > len(free):
            dropped, record = dropped + 1, b""
        said = self._tell_dropped(free, dropped, ts)
        free[said : said + len(record)] = record
        self._commit(len(rest), said + len(record), dropped=0 if said else dropped)


async def _fail(error: OSError) -> None:
    raise error
