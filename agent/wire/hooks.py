"""What a hook of a load balancer reads and writes: JSON, one object each.

Rules: it is told the whole wish, and answers how far the balancer is with every server of it; what it says of others is
passed over, and more fields may come on either side. An answer that is none is a reason, in few words. Not handled
here: running the command.
"""

from typing import Final, Literal

import msgspec
from msgspec import Struct

from agent.model.balancer import Standing, Wish

VERSION: Final = 1
ANSWER_BYTES_MAX: Final = 256 * 1024
_DETAIL_CHARACTERS_MAX: Final = 200


class _Server(Struct, frozen=True, kw_only=True):
    name: str
    address: str
    admitted: bool
    weight: int


class _Question(Struct, frozen=True, kw_only=True):
    version: int
    prefix: str
    drain_ms: int
    servers: tuple[_Server, ...]


class _Stands(Struct, frozen=True):
    state: Literal["admitted", "admitting", "draining", "drained", "gone"]
    detail: str = ""


class _Answer(Struct, frozen=True):
    servers: dict[str, _Stands]


def question(wish: Wish, prefix: str) -> bytes:
    """What a hook reads: all servers of this host there are to be, and what all of their names begin with."""
    servers = tuple(
        _Server(name=one.name, address=str(one.address), admitted=one.admitted, weight=one.weight)
        for one in wish.servers
    )
    asked = _Question(version=VERSION, prefix=prefix, drain_ms=wish.drain_ms, servers=servers)
    return msgspec.json.encode(asked) + b"\n"


def parse_answer(answer: bytes) -> dict[str, Standing] | str:
    """How far it is by server, or why this is no answer."""
    if len(answer) >= ANSWER_BYTES_MAX:
        return f"it answered {ANSWER_BYTES_MAX} bytes or more"
    try:
        told = msgspec.json.decode(answer, type=_Answer)
    except msgspec.DecodeError as error:
        return f"its answer cannot be read: {printable(str(error))}"
    return {
        name: Standing(state=stands.state, detail=printable(stands.detail)) for name, stands in told.servers.items()
    }


def printable(text: str) -> str:
    """One line of it for a person."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:_DETAIL_CHARACTERS_MAX]
