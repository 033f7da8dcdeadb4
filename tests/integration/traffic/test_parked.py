"""What a client hears while nobody is ready."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio import to_thread

from agent.traffic import parked
from agent.traffic.reuseport import PARKED, Group
from tests.integration.traffic.conftest import client

pytestmark = pytest.mark.anyio
REQUEST = b"POST /order HTTP/1.1\r\nHost: shop\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 4_000_000


@asynccontextmanager
async def answering(group: Group, *, http: bool) -> AsyncIterator[None]:
    async def run() -> None:
        await parked.answer(group.members[PARKED], http=http)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        yield
        tasks.cancel_scope.cancel()


def asked(group: Group, request: bytes) -> bytes:
    with client(group.address) as connected:
        connected.sendall(request)
        answer = b""
        while chunk := connected.recv(4096):
            answer += chunk
        return answer


async def test_http_gets_503(group: Group) -> None:
    """A request is answered at once: unavailable, try again, this connection is over; its body does not matter."""
    async with answering(group, http=True):
        for request in (REQUEST, b"GET / HTTP/1.1\r\n\r\n"):
            head, _, body = (await to_thread.run_sync(asked, group, request)).partition(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
            assert {b"Connection: close", b"Content-Length: %d" % len(body)} <= set(lines)


async def test_other_protocols_are_closed(group: Group) -> None:
    """A client of another protocol is closed without a word."""
    async with answering(group, http=False):
        assert await to_thread.run_sync(asked, group, b"") == b""


async def test_silent_and_rude_clients_keep_nobody_waiting(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that say nothing, for ever, or leave in between do not keep others from their answer."""
    monkeypatch.setattr(parked, "AT_ONCE_MAX", 4)
    monkeypatch.setattr(parked, "WITHIN_S", 0.2)
    async with answering(group, http=True):
        silent = [socket.create_connection((group.address.host, group.address.port)) for _ in range(12)]
        with client(group.address) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert b" 503 " in await to_thread.run_sync(asked, group, REQUEST)
    for connection in silent:
        connection.close()
