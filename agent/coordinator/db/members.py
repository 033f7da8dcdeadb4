"""Rows of members and of host tokens."""

from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, Table, delete, func, select

from agent.coordinator.db.rows import put
from agent.coordinator.db.schema import assignments, host_tokens, hosts, members
from agent.model.ids import EnvironmentName, HostName
from agent.model.units import Milliseconds

_environments: Final = msgspec.json.Decoder(tuple[EnvironmentName, ...])
_labels: Final = msgspec.json.Decoder(dict[str, str])


class Member(Struct, frozen=True, kw_only=True):
    """What operators decided about a host; over what it says of itself."""

    name: HostName
    public_key: str = ""
    environments: tuple[EnvironmentName, ...]
    labels: dict[str, str]
    joined_ms: Milliseconds
    removed_ms: Milliseconds = 0


class TokenForHost(Struct, frozen=True, kw_only=True):
    hash: str
    name: str = ""
    """The only name that it is good for; empty: the host's own choice."""
    environments: tuple[EnvironmentName, ...]
    labels: dict[str, str]
    made_by: str
    expires_ms: Milliseconds
    used_by: str = ""
    host: str = ""


def store(connection: Connection, member: Member) -> None:
    _put(connection, members, "name", member)


def every(connection: Connection) -> list[Member]:
    return [Member(**_read(row)) for row in connection.execute(select(members))]


def get(connection: Connection, name: HostName) -> Member | None:
    row = connection.execute(select(members).where(members.c.name == name)).one_or_none()
    return None if row is None else Member(**_read(row))


def forget(connection: Connection, name: HostName) -> None:
    """Remove what a host of this name said and was told."""
    connection.execute(delete(hosts).where(hosts.c.name == name))
    connection.execute(delete(assignments).where(assignments.c.host == name))


def is_known(connection: Connection, name: HostName) -> bool:
    """Whether a host of this name ever connected, and was not removed since."""
    return connection.execute(select(hosts.c.name).where(hosts.c.name == name)).one_or_none() is not None


def store_token(connection: Connection, token: TokenForHost) -> None:
    _put(connection, host_tokens, "hash", token)


def tokens(connection: Connection) -> list[TokenForHost]:
    return [TokenForHost(**_read(row)) for row in connection.execute(select(host_tokens))]


def drop_tokens(connection: Connection, before_ms: Milliseconds) -> int:
    """Forget tokens that expired before then; gives how many are left."""
    connection.execute(delete(host_tokens).where(host_tokens.c.expires_ms < before_ms))
    return int(connection.execute(select(func.count()).select_from(host_tokens)).scalar_one())


def _put(connection: Connection, table: Table, key: str, row: Struct) -> None:
    fields = msgspec.structs.asdict(row)
    texts = {name: msgspec.json.encode(fields[name]).decode() for name in ("environments", "labels")}
    put(connection, table, {key: fields.pop(key)}, {**fields, **texts})


def _read(row: Row[Any]) -> dict[str, Any]:
    fields = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return {
        **fields,
        "environments": _environments.decode(fields["environments"]),
        "labels": _labels.decode(fields["labels"]),
    }
