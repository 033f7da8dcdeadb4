"""Takes the connections of a listening socket of the agent's own: bounded in number and in time, and ended by nobody.

Rules: a connection beyond the bound waits in the queue. Nothing that a client does ends it, nor that no descriptor is
left: only its owner does, by cancelling. Not handled here: what is said.
"""

import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

_NO_FDS_PAUSE_S: Final = 0.1
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def receive(
    listening: socket.socket, serve: Callable[[socket.socket], Awaitable[None]], *, at_once: int, within_s: float
) -> None:
    """Serve everybody; each connection is closed when that is done or its time is over."""
    listening.settimeout(0)
    places = anyio.Semaphore(at_once)

    async def served(connection: socket.socket) -> None:
        try:
            with connection, anyio.move_on_after(within_s), contextlib.suppress(OSError):
                await serve(connection)
        finally:
            places.release()

    async with anyio.create_task_group() as connections:
        while True:
            await places.acquire()
            connections.start_soon(served, await _accept(listening))


async def _accept(listening: socket.socket) -> socket.socket:
    while True:
        await anyio.wait_readable(listening)
        try:
            connection, _ = listening.accept()
        except OSError as error:
            if error.errno in _SHORTAGES:
                await anyio.sleep(_NO_FDS_PAUSE_S)
            continue  # anything else is of one connection, which is gone
        connection.settimeout(0)
        return connection
