"""The conversation about a command between two ends on loopback: windows, ends, and who does not keep to them."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import anyio
import pytest
from aiohttp import web

from agent.errors import VerificationError
from agent.link.conversation import Conversation
from agent.link.runs import Line
from agent.wire.runs import (
    CHUNK_BYTES,
    STDERR,
    STDIN,
    STDOUT,
    WINDOW,
    Chunk,
    Ended,
    FromCaller,
    FromHost,
    Signalled,
    encode,
    from_caller,
    from_host,
)
from tests.integration.link.ends import DEADLINE_S

pytestmark = pytest.mark.anyio
CHUNK = b"x" * CHUNK_BYTES


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[Line, Line]]:
    """A caller's line and a host's, which are each other's."""
    arrived, over = anyio.Event(), anyio.Event()
    lines: list[Line] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        lines.append(Line(response))
        arrived.set()
        await over.wait()
        return response

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    try:
        async with aiohttp.ClientSession() as http, http.ws_connect(url) as connected:
            await arrived.wait()
            yield Line(connected), lines[0]
            over.set()
    finally:
        await runner.cleanup()


async def test_a_stream_waits_for_who_reads_it_and_words_and_the_other_stream_do_not() -> None:
    """A window of chunks is under way, and no more until one is taken; whatever else is said comes at once."""
    async with ends() as (callers, hosts), anyio.create_task_group() as tasks:
        caller, host = Conversation[FromHost](callers, from_host), Conversation[FromCaller](hosts, from_caller)
        heard: list[FromHost] = []
        written = 0
        told, more = anyio.Event(), anyio.Event()

        def hear(word: FromHost) -> None:
            heard.append(word)
            told.set()

        async def write() -> None:
            nonlocal written
            while await host.write(STDOUT, CHUNK):
                written += 1
                if written > WINDOW:
                    more.set()

        tasks.start_soon(caller.listen, hear)
        tasks.start_soon(host.listen, lambda _: None)
        tasks.start_soon(write)
        with anyio.fail_after(DEADLINE_S):
            for _ in range(3):
                await anyio.wait_all_tasks_blocked()
            await host.write(STDERR, b"beside")
            assert await caller.read(STDERR) == b"beside"
            await host.say(Ended(code=0))
            await told.wait()
            assert (heard, written) == ([Ended(code=0)], WINDOW)
            assert await caller.read(STDOUT) == CHUNK
            await caller.took(STDOUT)
            await more.wait()
        tasks.cancel_scope.cancel()


async def test_the_end_of_one_is_the_others() -> None:
    """What had come can still be read; then there is nothing, and what is written is for nobody."""
    async with ends() as (callers, hosts), anyio.create_task_group() as tasks:
        caller, host = Conversation[FromHost](callers, from_host), Conversation[FromCaller](hosts, from_caller)
        tasks.start_soon(host.listen, lambda _: None)
        with anyio.fail_after(DEADLINE_S):
            await caller.write(STDIN, b"last")
            await callers.close()
            await host.gone()
            assert [await host.read(STDIN), await host.read(STDIN)] == [b"last", None]
            assert not await host.write(STDOUT, CHUNK)
            await host.say(Ended(code=0))


LIES = {
    "more than its window": [encode(Chunk(STDIN, b"x"))] * (WINDOW + 1),
    "the other end's words": [encode(Ended(code=0))],
    "no word": ["{"],
}


@pytest.mark.parametrize("frames", LIES.values(), ids=LIES)
async def test_who_does_not_keep_to_it_is_heard_no_more(frames: list[str | bytes]) -> None:
    """It is an error for whoever listens, and nothing more is kept."""
    async with ends() as (callers, hosts):
        host = Conversation[FromCaller](hosts, from_caller)
        for frame in (encode(Signalled(signal="SIGINT")), *frames):
            await callers.send(frame)
        heard: list[FromCaller] = []
        with anyio.fail_after(DEADLINE_S), pytest.raises(VerificationError):
            await host.listen(heard.append)
        assert heard == [Signalled(signal="SIGINT")]
        assert host.over
