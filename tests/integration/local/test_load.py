"""The users of the demo: whatever goes wrong is counted, for a proof that cannot fail proves nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import pytest

from agent.local.load import Load, Tally, _request

pytestmark = pytest.mark.anyio
ADDRESS = "127.0.0.1"


def answer(version: str, status: str = "200 OK") -> bytes:
    body = f'{{"version":"{version}"}}'
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def _port(listener: anyio.abc.Listener[anyio.abc.SocketStream]) -> int:
    return listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - this is no Django


@asynccontextmanager
async def load_on(reply: bytes) -> AsyncIterator[Load]:
    """A load that expects version 1, on a server that answers `reply` to everything and closes."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(reply)

    async with await anyio.create_tcp_listener(local_host=ADDRESS) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        load = Load([ADDRESS], _port(listener), pause_s=0, orders=False)
        load.obey("expect", "1")
        yield load
        tasks.cancel_scope.cancel()


REPLIES = {
    "the right answer": (answer("1"), 0),
    "another version": (answer("2"), 1),
    "an error": (answer("1", "500 Internal Server Error"), 1),
    "no answer": (b"", 1),
    "half an answer": (answer("1")[:-3], 1),
    "no HTTP": (b"hello\r\n\r\n", 1),
}


@pytest.mark.parametrize("case", REPLIES)
async def test_every_failed_or_wrong_answer_is_counted(case: str) -> None:
    """Only a right answer is none."""
    reply, failed = REPLIES[case]
    async with load_on(reply) as load:
        connection = await load._ask(ADDRESS, None, _request("GET", ADDRESS, keeps=False))
        tally = load.obey("tally")
        assert (tally.failed, len(tally.reasons), tally.cut) == (failed, failed, 0)
        assert (connection is None) == bool(failed)
        if connection is not None:
            connection.close()


async def test_a_refused_connection_is_counted() -> None:
    """Nobody listens: that is a failure like any other."""
    load = Load([ADDRESS], 1, pause_s=0, orders=False)
    await load._ask(ADDRESS, None, _request("GET", ADDRESS, keeps=False))
    assert load.obey("tally").failed == 1


async def ask_around_a_kill(reply: bytes, killed: str, *, begun_before: bool) -> Tally:
    async with load_on(reply) as load:
        load.obey("kill", killed)
        if not begun_before:
            load.obey("killed")
        await load._ask(ADDRESS, None, _request("GET", ADDRESS, keeps=False))
        return load.obey("tally")


KILLS = {
    "cut on the host of the kill, begun before it was over": (b"", ADDRESS, True, (0, 1)),
    "cut there, but begun after it": (b"", ADDRESS, False, (1, 0)),
    "cut on another host": (b"", "127.0.0.9", True, (1, 0)),
    "answered wrong there meanwhile": (answer("2"), ADDRESS, True, (1, 0)),
}


@pytest.mark.parametrize("case", KILLS)
async def test_only_what_a_kill_cut_off_is_excused(case: str) -> None:
    """A request in the hands of a killed process is counted apart; a kill excuses nothing else."""
    reply, killed, begun_before, counts = KILLS[case]
    tally = await ask_around_a_kill(reply, killed, begun_before=begun_before)
    assert (tally.failed, tally.cut) == counts
