"""The one writer of a role's standard output: JSON lines of instances and own events, in order.

Rules: the event loop is never blocked. Whoever brings instance lines waits while the bound is reached, so that a slow
reader slows the app and loses nothing; own events never wait, and what they lose is counted in a record. O_NONBLOCK is
never set on the descriptor itself, for its description is shared with whoever started us: a pipe is opened again by
path, a socket is written with MSG_DONTWAIT, a file or terminal in a thread. A reader that has gone away loses its
lines, and stops nothing.
"""

import errno
import os
import select
import socket
import stat
from collections.abc import Callable
from typing import Final

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskStatus

BOUND_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 16
_POLL_S: Final = 1.0
_NOBODY_READS: Final = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EIO, errno.ENOSPC}


class Stdout:
    """`run` is its owner's task; `write`, `put` and `flush` are for everybody else on the same loop."""

    def __init__(self, fd: int = 1, bound_bytes: int = BOUND_BYTES) -> None:
        self._fd = fd
        self._bound = bound_bytes
        self._waiting = bytearray()
        self._lost = 0
        self._changed = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Write what is given, until cancelled."""
        way = _way_out(self._fd)
        task_status.started()
        try:
            while True:
                while not self._waiting:
                    await self._changed.wait()
                await self._write_some(way)
                self._tell()
        finally:
            way.close()

    async def write(self, records: bytes) -> None:
        """Take whole lines; returns once there is room for them."""
        while len(self._waiting) >= self._bound:
            await self._changed.wait()
        self._waiting += records
        self._tell()

    def put(self, record: bytes) -> None:
        """Take one line or count it as lost; never waits. Twice the bound, so that events pass waiting instances."""
        if len(self._waiting) + len(record) > 2 * self._bound:
            self._lost += 1
            return
        self._waiting += record
        self._tell()

    async def flush(self) -> None:
        """Wait until everything is written."""
        while self._waiting:
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _write_some(self, way: "_Way") -> None:
        chunk = bytes(self._waiting[:_CHUNK_BYTES])
        try:
            del self._waiting[: await way.write(chunk)]
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                raise
            self._lost += chunk.count(b"\n")
            del self._waiting[: len(chunk)]
        else:
            if self._lost and not self._waiting:
                self._waiting += _gap(self._lost)
                self._lost = 0


class _Way:
    """A descriptor, and how to write to it: at once as much as it takes, else after waiting."""

    def __init__(self, fd: int, attempt: Callable[[bytes], int], close: Callable[[], None]) -> None:
        self._fd = fd
        self._attempt = attempt
        self.close = close

    async def write(self, chunk: bytes) -> int:
        while True:
            try:
                return self._attempt(chunk)
            except BlockingIOError:
                await self._wait()

    async def _wait(self) -> None:
        await anyio.wait_writable(self._fd)


class _SharedWay(_Way):
    """A socket of which others have the description too: uvloop would set O_NONBLOCK on it, so a thread polls it."""

    async def _wait(self) -> None:
        await to_thread.run_sync(select.select, (), (self._fd,), (), _POLL_S, abandon_on_cancel=True)


class _ThreadWay(_Way):
    """A file or a terminal: neither can be waited for, so a thread may block in it; cancelling leaves it there."""

    async def write(self, chunk: bytes) -> int:
        return await to_thread.run_sync(self._attempt, chunk, abandon_on_cancel=True)


def _way_out(fd: int) -> _Way:
    kind = os.fstat(fd).st_mode
    if stat.S_ISSOCK(kind):
        sock = socket.socket(fileno=os.dup(fd))
        return _SharedWay(sock.fileno(), lambda chunk: sock.send(chunk, socket.MSG_DONTWAIT), sock.close)
    if stat.S_ISFIFO(kind):
        try:
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            pass  # Another user's pipe, or its reader is gone already: the thread finds out which.
        else:
            return _Way(own, lambda chunk: os.write(own, chunk), lambda: os.close(own))
    return _ThreadWay(fd, lambda chunk: os.write(fd, chunk), lambda: None)


def _gap(lost: int) -> bytes:
    return msgspec.json.encode({"level": "warning", "event": "log records were lost", "lost": lost}) + b"\n"
