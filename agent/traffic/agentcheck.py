"""Answers HAProxy's agent-check: is this app of this host to get users? For balancers that nobody may tell anything.

Rules: HAProxy names app and environment by its `agent-send`, and is answered one line. Nobody is waited for long, only
so many are heard at once; who names an app that this host does not have hears `down`, with why.
Not handled here: which answer it is.
"""

import asyncio
from collections.abc import Callable
from socket import socket
from typing import Final, Literal

from msgspec import Struct

from agent.traffic.callers import receive
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
    """Answer on a listening socket, until cancelled."""

    async def answer(connection: socket) -> None:
        if (question := await _question(connection)) is not None:
            words = question.decode("ascii", errors="replace").split()
            told = asked(*words) if len(words) == _WORDS else Answer("down", "not asked for APP ENVIRONMENT")
            await asyncio.get_running_loop().sock_sendall(connection, agent_check_line(told.state, told.reason))

    await receive(listening, answer, at_once=AT_ONCE_MAX, within_s=WITHIN_S)


async def _question(connection: socket) -> bytes | None:
    """The first line; None where it does not end, or is too long."""
    read = b""
    while b"\n" not in read:
        chunk = await asyncio.get_running_loop().sock_recv(connection, QUESTION_BYTES_MAX + 1 - len(read))
        read += chunk
        if not chunk or len(read) > QUESTION_BYTES_MAX:
            return None
    return read.partition(b"\n")[0]
