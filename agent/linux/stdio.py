"""Standard streams of ours, read and written without blocking the loop, whatever they are.

Rules: O_NONBLOCK is never set on the descriptor itself, for its description is shared with whoever started us: a pipe
or a terminal is opened again by path to be written, a socket is asked not to wait; where neither can be had no more
is written than there is room for. A file is never waited for.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from typing import Final

import anyio

_ROOM_BYTES: Final = 4_096
"""That a pipe which is writable takes at once (pipe(7)); a terminal about as much."""


async def read(fd: int, size_bytes: int) -> bytes:
    """What is there, once anything is; nothing at the end. Raises OSError."""
    with contextlib.suppress(PermissionError):  # a file, of which epoll(7) knows nothing
        await anyio.wait_readable(fd)
    return os.read(fd, size_bytes)


class Out:
    """One stream to write to; made by `out`."""

    def __init__(self, fd: int, *, waits: bool) -> None:
        self._fd, self._waits = fd, waits

    async def write(self, data: bytes) -> None:
        """Write all of it. Raises OSError."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[await self._write(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._fd)

    async def _write(self, data: memoryview) -> int:
        if self._waits:
            with contextlib.suppress(PermissionError):  # as above
                await anyio.wait_writable(self._fd)
                data = data[:_ROOM_BYTES]
        return os.write(self._fd, data)


class _SocketOut(Out):
    async def _write(self, data: memoryview) -> int:
        with socket.socket(fileno=os.dup(self._fd)) as shared:
            return shared.send(data, socket.MSG_DONTWAIT)


@contextlib.contextmanager
def out(fd: int) -> Iterator[Out]:
    """The way to write to this descriptor."""
    kind = os.fstat(fd).st_mode
    if stat.S_ISSOCK(kind):
        yield _SocketOut(fd, waits=False)
        return
    own: int | None = None
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        with contextlib.suppress(OSError):  # another user's, or nobody reads it any more: the write finds out
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if own is None:
        yield Out(fd, waits=True)
        return
    try:
        yield Out(own, waits=False)
    finally:
        os.close(own)
