"""What the parked socket of a group answers: `503` to HTTP, a close to everything else; never silence, never a wait.

Rules: bounded in connections at once, in bytes and in time; a connection beyond the bound waits in the queue. It runs
until it is cancelled, as a task of whoever owns the group; nothing that a client does ends it.
"""

import asyncio
import socket
from typing import Final

from agent.traffic.callers import receive

AT_ONCE_MAX: Final = 256
WITHIN_S: Final = 5.0
REQUEST_BYTES_MAX: Final = 64 * 1024
_CHUNK_BYTES: Final = 16 * 1024
_BODY: Final = b"No instance is ready to answer.\n"
_UNAVAILABLE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\n\r\n%s"
) % (len(_BODY), _BODY)


async def answer(parked: socket.socket, *, http: bool) -> None:
    """Take every connection that reaches the parked socket and send it away."""
    await receive(parked, _say_unavailable if http else _say_nothing, at_once=AT_ONCE_MAX, within_s=WITHIN_S)


async def _say_nothing(_connection: socket.socket) -> None:
    """To whom no word of HTTP means anything."""


async def _say_unavailable(connection: socket.socket) -> None:
    """Answer after the request's head, then read on until the client closes: else a reset could overtake the answer."""
    loop = asyncio.get_running_loop()
    head = b""
    while b"\r\n\r\n" not in head and len(head) < REQUEST_BYTES_MAX:
        chunk = await loop.sock_recv(connection, _CHUNK_BYTES)
        if not chunk:
            return
        head += chunk
    await loop.sock_sendall(connection, _UNAVAILABLE)
    connection.shutdown(socket.SHUT_WR)
    while await loop.sock_recv(connection, _CHUNK_BYTES):
        pass
