"""The one writer of a role's standard output: the journals of instances and of the role's own events, record by record.

Rules: the event loop is never blocked. Journals take turns, each until what it had at its turn is sent, so that
records are never mixed; what a slow reader has not taken stays in its journal, where whoever writes it waits for room.
While nobody waits and the reader keeps up, what is offered is sent at once, without a task's turn.
Own events never wait, and what they lose is counted in a record. O_NONBLOCK is never set on the descriptor itself, for
its description is shared with whoever started us: a pipe is opened again by path, a socket is asked before, a file or
terminal is written in a thread. A reader that has gone away loses its lines, and stops nothing.
"""

import asyncio
import errno
import os
import select
import socket
import stat
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskStatus

from agent.errors import unreachable
from agent.linux import fifo
from agent.linux.journal import APPEND_BYTES, Journal
from agent.linux.passage import Passage

PIPE_BYTES: Final = 1 << 20
OWN_WITHIN_S: Final = 0.005
"""Own events that are told within this time are sent together: each time wakes the reader, and hundreds may start."""
_POLL_S: Final = 1.0
_NOBODY_READS: Final = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EIO, errno.ENOSPC}
_NO_SPLICE: Final = {errno.EINVAL, errno.ENOSYS}
OWN_JOURNAL: Final = "agent-journal"
PASSAGE: Final = "agent-passage"
"""The names under which the journal of own events, and what all journals are sent through, are kept."""


class Stdout:
    """`run` is its owner's task; the rest, but for `put`, is for everybody else on the same loop."""

    def __init__(self, fd: int = 1, own: Journal | None = None, passage: Passage | None = None) -> None:
        self.own: Final = own or Journal.create(OWN_JOURNAL)
        self._passage: Final = passage or Passage.create()
        self._fd = fd
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._is_due = False
        self._pipe: _Pipe | None = None
        """Where it leads to one that has room: what is offered is sent at once."""
        self._waiting: dict[Journal, None] = {}
        self._turn: Journal | None = None
        self._left = 0
        """Bytes that the one whose turn it is may send in it."""
        self._lost = 0
        self.sent_bytes = 0
        self.lost_records = 0
        """In all its life; `_lost` are those of which no record tells yet."""
        self._changed = anyio.Event()
        self._watchers = 0
        self._for_room: dict[Journal, list[Callable[[], None]]] = {}
        self._failure: OSError | None = None
        self._failed = anyio.Event()
        self.offer(self.own)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Send what is offered, until cancelled. Raises OSError where that cannot be done."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        way = _way_out(self._fd, self._passage)
        self._resume(way)
        task_status.started()
        try:
            if isinstance(way, _Pipe):
                self._flow(way)
                await self._failed.wait()
                if self._failure is not None:
                    raise self._failure
            else:
                await self._send(way)
        finally:
            self._loop = self._pipe = None
            way.close()

    def offer(self, journal: Journal) -> None:
        """Say that a journal may have unsent records; its turn comes."""
        if journal.unsent:
            self._waiting.setdefault(journal)
            if self._pipe is not None:
                self._flow(self._pipe)
            else:
                self._tell()

    async def room(self, journal: Journal) -> None:
        """Wait until the journal may be added to."""
        while journal.is_full:
            await self._change()

    def when_room(self, journal: Journal, call: Callable[[], None]) -> None:
        """Have it called, once, as soon as the journal may be added to."""
        self._for_room.setdefault(journal, []).append(call)
        self._tell()

    async def write(self, records: bytes) -> None:
        """Take whole lines among the own events; returns once there is room for them."""
        while records:
            end = records.rfind(b"\n", 0, APPEND_BYTES) + 1 or APPEND_BYTES
            await self.room(self.own)
            self.own.append((records[:end],))
            self.offer(self.own)
            records = records[end:]

    def put(self, record: bytes) -> None:
        """Take one line or count it as lost; never waits. Events pass records that wait for room. From any thread."""
        if self._loop is None:
            self._put(record)
        elif threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self.put, record)
        else:
            self._put(record)
            if not self._is_due:
                self._is_due = True
                self._loop.call_later(OWN_WITHIN_S, self._send_own)

    def _send_own(self) -> None:
        self._is_due = False
        self.offer(self.own)

    def _put(self, record: bytes) -> None:
        if len(record) > len(self.own.free):
            self._lost += 1
            self.lost_records += 1
            return
        self.own.append((record,))
        self._waiting.setdefault(self.own)

    @property
    def unsent_bytes(self) -> int:
        return sum(journal.unsent for journal in self._waiting)

    async def flush(self) -> None:
        """Wait until everything is sent."""
        while self._waiting:
            await self._change()

    def _resume(self, way: "_Way") -> None:
        """Be in step with what an earlier process left on its way."""
        began = [one for one in self._waiting if one.has_turn]
        for journal in began:
            journal.resume_turn(self._passage)
            if not way.continues:
                journal.take_back(self._passage, whole_records=True)
        if not began and not way.continues:
            self._passage.clear()

    async def _send(self, way: "_Socket | _Other") -> None:
        while True:
            while not self._has_turn():
                await self._change()
            try:
                self._count(await way.send(self._journal, self._left))
            except OSError as error:
                self._nobody_reads(error)

    def _flow(self, way: "_Pipe") -> None:
        """Send what waits, until the reader takes no more; then go on when it does."""
        self._pipe = None
        try:
            while self._has_turn():
                try:
                    self._count(way.move(self._journal, self._left))
                except BlockingIOError:
                    way.call_when_writable(partial(self._flow, way))
                    return
                except OSError as error:
                    self._nobody_reads(error)
        except OSError as error:
            self._failure = error
            self._failed.set()
        self._pipe = way

    @property
    def _journal(self) -> Journal:
        if self._turn is None:
            unreachable(self._left)
        return self._turn

    def _has_turn(self) -> bool:
        """Whether there is anything to send, and then whose turn it is."""
        while self._turn is None and self._waiting:
            # What an earlier process sent in part comes first: nothing may stand in a record's middle.
            self._turn = next((one for one in self._waiting if one.has_turn), next(iter(self._waiting)))
            self._left = self._turn.left(self._passage)
            if self._left == 0:
                self._end_turn()
        return self._turn is not None

    def _count(self, sent: int) -> None:
        """So many bytes of the turn are sent; its end is that of what the journal had at its beginning."""
        self._left -= sent
        self.sent_bytes += sent
        if self._left == 0:
            self._end_turn()
            self._tell_lost()
        self._tell()

    def _nobody_reads(self, error: OSError) -> None:
        if error.errno not in _NOBODY_READS:
            raise error
        lost = self._journal.give_up(self._passage, self._left)
        self._lost += lost
        self.lost_records += lost
        self._end_turn()
        self._tell()

    def _end_turn(self) -> None:
        journal, self._turn, self._left = self._journal, None, 0
        journal.end_turn()
        del self._waiting[journal]
        if journal.unsent:  # what came meanwhile
            self._waiting[journal] = None

    def _tell_lost(self) -> None:
        if self._lost and not self._waiting:
            gap = {"level": "warning", "event": "log records were lost", "lost": self._lost}
            self._lost = 0
            self.own.append((msgspec.json.encode(gap), b"\n"))
            self._waiting[self.own] = None

    def _tell(self) -> None:
        """Something was sent, or is to be."""
        if self._watchers:
            self._changed.set()
            self._changed = anyio.Event()
        for journal in [one for one in self._for_room if not one.is_full]:
            for call in self._for_room.pop(journal):
                asyncio.get_running_loop().call_soon(call)

    async def _change(self) -> None:
        self._watchers += 1
        try:
            await self._changed.wait()
        finally:
            self._watchers -= 1


class _Way:
    """Where records go. A next process has another reader, which has not seen the start of a record."""

    continues = False

    def __init__(self, fd: int, passage: Passage) -> None:
        self._fd, self._passage = fd, passage

    def move(self, journal: Journal, count: int, most: int = PIPE_BYTES) -> int:
        """Send at most `most` of the `count` bytes that are left of the journal's turn; how many that were."""
        if not self._passage.level:
            journal.hand_over(self._passage, count)
        return self._passage.send(self._fd, most)

    def close(self) -> None:
        """The descriptor is not ours."""


class _Pipe(_Way):
    """A pipe that is our own to wait for. A next process has the same reader, which gets the rest of a record."""

    continues = True

    def call_when_writable(self, call: Callable[[], None]) -> None:
        """Once."""
        loop = asyncio.get_running_loop()

        def writable() -> None:
            loop.remove_writer(self._fd)
            call()

        loop.add_writer(self._fd, writable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_writer(self._fd)
        os.close(self._fd)


class _Socket(_Way):
    """A socket whose description others have too: only sent to when it has room, and a thread waits for that.

    A unix stream is writable while three quarters of its buffer are free (unix(7)), so that a quarter never blocks.
    """

    async def send(self, journal: Journal, count: int) -> int:
        while not _has_room(self._fd, 0):
            await to_thread.run_sync(_has_room, self._fd, _POLL_S, abandon_on_cancel=True)
        with socket.socket(fileno=os.dup(self._fd)) as sock:
            room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 4
        return self.move(journal, count, max(room, 1))


def _has_room(fd: int, within_s: float) -> bool:
    writable = select.poll()  # select(2) knows no number above 1023
    writable.register(fd, select.POLLOUT)
    return bool(writable.poll(within_s * 1_000))


class _Other(_Way):
    """A file or a terminal: neither can be waited for, so a thread may block in it; cancelling leaves it there."""

    _splices = True

    async def send(self, journal: Journal, count: int) -> int:
        """Perhaps nothing."""
        return await to_thread.run_sync(self._write, journal, count, abandon_on_cancel=True)

    def _write(self, journal: Journal, count: int) -> int:
        if self._splices:
            try:
                return self.move(journal, count)
            except BlockingIOError:  # a pipe that we may not open again
                _has_room(self._fd, _POLL_S)
                return 0
            except OSError as error:
                if error.errno not in _NO_SPLICE:
                    raise
            journal.take_back(self._passage, whole_records=False)
            self._splices = False
        # Opened to append, or no file at all: here alone a kill in between sends a record twice.
        written = os.write(self._fd, journal.next_unsent(count))
        journal.skip(written)
        return written


def _way_out(fd: int, passage: Passage) -> _Pipe | _Socket | _Other:
    kind = os.fstat(fd).st_mode
    if stat.S_ISSOCK(kind):
        return _Socket(fd, passage)
    if stat.S_ISFIFO(kind):
        try:
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            fifo.enlarge(own, PIPE_BYTES)
            return _Pipe(own, passage)
        except OSError:
            pass  # Another user's pipe, or its reader is gone already: the thread finds out which.
    return _Other(fd, passage)
