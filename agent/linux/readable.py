"""Waits until there is something to read, by nothing but a future: it is done at each launch and each end.

Rules: one waits for a number at a time; who may not be alone waits for a copy of it.
"""

import asyncio
import socket


async def readable(fd: int | socket.socket) -> None:
    """Until it is, or is over. Raises OSError where no loop can wait for it."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
