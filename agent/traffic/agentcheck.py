"""Answers HAProxy's agent-check: is this app of this host to get users? For balancers that nobody may tell anything.

Rules: HAProxy names app and environment by its `agent-send`, and is answered one line. Nobody is waited for long, only
so many are heard at once; who names an app that this host does not have hears `down`, with why.
Not handled here: which answer it is.
"""

from collections.abc import Callable
from socket import socket
from typing import Final, Literal

import anyio
from anyio.abc import SocketListener, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from msgspec import Struct

from agent.wire.haproxy import agent_check_line

QUESTION_BYTES_MAX: Final = 128
WITHIN_S: Final = 1.0
AT_ONCE_MAX: Final = 64
_WORDS: Final = 2


class Answer(Struct, frozen=True):
    """ready: users may come. drain: nobody new. down: not at all, and why."""

    state: Literal["ready", "drain", "down"]
    reason: str = ""


Asked = Callable[[str, str], Answer]
"""Of an app and an environment."""


async def serve(listening: socket, asked: Asked) -> None:
    """Answer on a listening socket, until cancelled; it is closed then."""
    places = anyio.Semaphore(AT_ONCE_MAX)

    async def answer(stream: SocketStream) -> None:
        async with stream, places:
            with anyio.move_on_after(WITHIN_S):
                await _answer(stream, asked)

    async with await SocketListener.from_socket(listening) as listener:
        await listener.serve(answer)


async def _answer(stream: SocketStream, asked: Asked) -> None:
    try:
        question = await BufferedByteReceiveStream(stream).receive_until(b"\n", QUESTION_BYTES_MAX)
    except (anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError):
        return
    words = question.decode("ascii", errors="replace").split()
    told = asked(*words) if len(words) == _WORDS else Answer("down", "not asked for APP ENVIRONMENT")
    try:
        await stream.send(agent_check_line(told.state, told.reason))
    except anyio.BrokenResourceError:
        return
