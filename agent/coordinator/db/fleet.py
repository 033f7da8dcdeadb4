"""Rows of hosts and tokens, and the epoch."""

from typing import Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from agent.coordinator.db.rows import put
from agent.coordinator.db.schema import hosts, meta, tokens
from agent.model.units import Milliseconds
from agent.wire.messages import Hello

_hello: Final = msgspec.json.Decoder(Hello)


class TokenRow(Struct, frozen=True, kw_only=True):
    hash: str
    name: str
    role: str


def next_epoch(connection: Connection) -> int:
    """One more than ever before."""
    last = connection.execute(select(meta.c.value).where(meta.c.key == "epoch")).scalar_one_or_none() or 0
    put(connection, meta, {"key": "epoch"}, {"value": last + 1})
    return int(last) + 1


def store_host(connection: Connection, hello: Hello, now_ms: Milliseconds) -> None:
    put(
        connection,
        hosts,
        {"name": hello.host},
        {"hello": msgspec.json.encode(hello).decode(), "last_seen_ms": now_ms},
    )


def list_hosts(connection: Connection) -> list[Hello]:
    return [_hello.decode(text) for text in connection.scalars(select(hosts.c.hello).order_by(hosts.c.name))]


def store_token(connection: Connection, row: TokenRow, now_ms: Milliseconds) -> None:
    put(connection, tokens, {"hash": row.hash}, {"name": row.name, "role": row.role, "created_ms": now_ms})


def list_tokens(connection: Connection) -> list[TokenRow]:
    rows = connection.execute(select(tokens.c.hash, tokens.c.name, tokens.c.role))
    return [TokenRow(hash=digest, name=name, role=role) for digest, name, role in rows]
