"""The one writer of a role's standard output: the journals of instances and of the role's own events, record by record.

Rules: the event loop is never blocked. Journals take turns, each until what it had at its turn is sent, so that
records are never mixed; what a slow reader has not taken stays in its journal, where whoever writes it waits for room.
Own events never wait, and what they lose is counted in a record. O_NONBLOCK is never set on the descriptor itself, for
its description is shared with whoever started us: a pipe is opened again by path, a socket is asked before, a file or
terminal is written in a thread. A reader that has gone away loses its lines, and stops nothing.
"""

import errno
import os
import select
import socket
import stat
from typing import Final

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskStatus

from agent.linux import fifo
from agent.linux.journal import Journal

BOUND_BYTES: Final = 1 << 20
_SLICE_BYTES: Final = 1 << 20
_POLL_S: Final = 1.0
_NOBODY_READS: Final = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EIO, errno.ENOSPC}
_NO_SENDFILE: Final = {errno.EINVAL, errno.ENOSYS}
OWN_JOURNAL: Final = "agent-journal"
"""The name under which the journal of own events is kept."""


class Stdout:
    """`run` is its owner's task; the rest is for everybody else on the same loop."""

    def __init__(self, fd: int = 1, bound_bytes: int = BOUND_BYTES, own: Journal | None = None) -> None:
        self.own: Final = own or Journal.create(OWN_JOURNAL)
        self._fd = fd
        self._bound = bound_bytes
        self._waiting: dict[Journal, None] = {}
        self._lost = 0
        self.sent_bytes = 0
        self.lost_records = 0
        """In all its life; `_lost` are those of which no record tells yet."""
        self._changed = anyio.Event()
        self.offer(self.own)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Send what is offered, until cancelled."""
        way = _way_out(self._fd)
        task_status.started()
        try:
            while True:
                while not self._waiting:
                    await self._changed.wait()
                # A record that an earlier process sent in part comes first: nothing may stand in its middle.
                journal = next((one for one in self._waiting if one.inside_record), next(iter(self._waiting)))
                if journal.inside_record and not way.continues:
                    journal.send_record_again()
                was_read = await self._send(journal, way)
                del self._waiting[journal]
                self.offer(journal)
                if was_read:
                    self._tell_lost()
                self._tell()
        finally:
            way.close()

    def offer(self, journal: Journal) -> None:
        """Say that a journal may have unsent records; its turn comes."""
        if journal.unsent:
            self._waiting.setdefault(journal)
            self._tell()

    def is_full(self, journal: Journal) -> bool:
        return journal.unsent >= self._bound

    async def room(self, journal: Journal) -> None:
        """Wait until the journal may be added to."""
        while self.is_full(journal):
            await self._changed.wait()

    async def write(self, records: bytes) -> None:
        """Take whole lines among the own events; returns once there is room for them."""
        await self.room(self.own)
        self.own.append((records,))
        self.offer(self.own)

    def put(self, record: bytes) -> None:
        """Take one line or count it as lost; never waits. Twice the bound, so that events pass waiting records."""
        if self.own.unsent + len(record) > 2 * self._bound:
            self._lost += 1
            self.lost_records += 1
            return
        self.own.append((record,))
        self.offer(self.own)

    @property
    def unsent_bytes(self) -> int:
        return sum(journal.unsent for journal in self._waiting)

    async def flush(self) -> None:
        """Wait until everything is sent."""
        while self._waiting:
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _send(self, journal: Journal, way: "_Way") -> bool:
        """Send what the journal has now, what comes meanwhile at its next turn; whether somebody reads."""
        left = journal.unsent
        while left > 0:
            try:
                sent = await way.send(journal, min(left, _SLICE_BYTES))
                left -= sent
                self.sent_bytes += sent
            except OSError as error:
                if error.errno not in _NOBODY_READS:
                    raise
                lost = journal.next_unsent(left).count(b"\n")
                self._lost += lost
                self.lost_records += lost
                journal.skip(left)
                return False
            self._tell()
        return True

    def _tell_lost(self) -> None:
        if self._lost and not self._waiting:
            gap = {"level": "warning", "event": "log records were lost", "lost": self._lost}
            self._lost = 0
            self.own.append((msgspec.json.encode(gap), b"\n"))
            self.offer(self.own)


class _Way:
    """A pipe that is our own to wait for."""

    continues = True
    """Whether a next process has the same reader, which then gets the rest of a record."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def send(self, journal: Journal, count: int) -> int:
        while True:
            try:
                return journal.send(self._fd, count)
            except BlockingIOError:
                await anyio.wait_writable(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class _SocketWay(_Way):
    """A socket whose description others have too: only sent to when it has room, and a thread waits for that.

    A unix stream is writable while three quarters of its buffer are free (unix(7)), so that a quarter never blocks.
    """

    continues = False

    async def send(self, journal: Journal, count: int) -> int:
        while not _has_room(self._fd, 0):
            await to_thread.run_sync(_has_room, self._fd, _POLL_S, abandon_on_cancel=True)
        with socket.socket(fileno=os.dup(self._fd)) as sock:
            room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 4
        return journal.send(self._fd, min(count, max(room, 1)))

    def close(self) -> None:
        """The descriptor is not ours."""


def _has_room(fd: int, within_s: float) -> bool:
    writable = select.poll()  # select(2) knows no number above 1023
    writable.register(fd, select.POLLOUT)
    return bool(writable.poll(within_s * 1_000))


class _ThreadWay(_Way):
    """A file or a terminal: neither can be waited for, so a thread may block in it; cancelling leaves it there."""

    continues = False

    async def send(self, journal: Journal, count: int) -> int:
        def write() -> int:
            try:
                return journal.send(self._fd, count)
            except OSError as error:
                if error.errno not in _NO_SENDFILE:
                    raise
            # Opened to append, or no file at all: here alone a kill in between sends a record twice.
            written = os.write(self._fd, journal.next_unsent(count))
            journal.skip(written)
            return written

        return await to_thread.run_sync(write, abandon_on_cancel=True)

    def close(self) -> None:
        """The descriptor is not ours."""


def _way_out(fd: int) -> _Way:
    kind = os.fstat(fd).st_mode
    if stat.S_ISSOCK(kind):
        return _SocketWay(fd)
    if stat.S_ISFIFO(kind):
        try:
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            fifo.enlarge(own, BOUND_BYTES)
            return _Way(own)
        except OSError:
            pass  # Another user's pipe, or its reader is gone already: the thread finds out which.
    return _ThreadWay(fd)
