"""One question to HAProxy's stats socket, unix or TCP, and its whole answer: bounded in time and in size.

Rules: a connection for each question, whose end is the answer's. What goes wrong is a value with what to do about it.
Not handled here: what the words mean.
"""

from typing import Final

import anyio
from anyio.abc import ByteStream

from agent.model.address import parse_address
from agent.wire.haproxy import ANSWER_BYTES_MAX, Refusal

ANSWER_WITHIN_S: Final = 2.0
"""HAProxy answers within milliseconds; one that is stopped or overloaded must not hold anybody up for long."""


async def ask(where: str, line: bytes) -> bytes | Refusal:
    """Say one line to the stats socket `where` (a path, or HOST:PORT), and give all that is answered."""
    try:
        with anyio.fail_after(ANSWER_WITHIN_S):
            async with await _connected(where) as stream:
                await stream.send(line)
                return await _answer(stream)
    except TimeoutError:
        return Refusal(f"no answer within {ANSWER_WITHIN_S:g} s", "See whether HAProxy runs, and is not overloaded.")
    except PermissionError as error:
        return Refusal(_why(error), "Let the agent's user write to the stats socket (`user`, `group`, `mode` of it).")
    except OSError as error:
        return Refusal(_why(error), "Start HAProxy, or correct `sockets` in [load_balancer].")
    except anyio.BrokenResourceError:
        return Refusal("the connection broke", "See HAProxy's log.")


async def _connected(where: str) -> ByteStream:
    if where.startswith("/"):
        return await anyio.connect_unix(where)
    address = parse_address(where)
    return await anyio.connect_tcp(address.host, address.port)


async def _answer(stream: ByteStream) -> bytes:
    """All until the end, or one byte more than there may be: who reads it then sees that it is too much."""
    answer = bytearray()
    while len(answer) <= ANSWER_BYTES_MAX:
        try:
            answer += await stream.receive()
        except anyio.EndOfStream:
            break
    return bytes(answer[: ANSWER_BYTES_MAX + 1])


def _why(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()
