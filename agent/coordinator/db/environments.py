"""Rows of environments: settings, key, what runs, what is stable, the number of the last order."""

from typing import Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, insert, select, update

from agent.coordinator.db.schema import environments as table
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, EnvironmentName

_runs: Final = msgspec.json.Decoder(ReleaseRef | None)
_stable: Final = msgspec.json.Decoder(tuple[ReleaseRef, ...])


class EnvironmentRow(Struct, frozen=True, kw_only=True):
    app: AppName
    environment: EnvironmentName
    file: str = ""
    """Text of its settings."""
    recipient: str
    """Of its age identity: what secrets are encrypted to."""
    identity: bytes
    """Encrypted to the coordinator's own identity."""
    runs: ReleaseRef | None = None
    stable: tuple[ReleaseRef, ...] = ()
    """Releases to go back to, newest last."""
    sequence: int = 0
    order: str = ""
    """Envelope of the last order begun: it allows what runs now."""


def get(connection: Connection, app: AppName, environment: EnvironmentName) -> EnvironmentRow | None:
    query = select(table).where(table.c.app == app, table.c.environment == environment)
    row = connection.execute(query).one_or_none()
    return None if row is None else _read(row)


def every(connection: Connection, app: AppName | None = None) -> list[EnvironmentRow]:
    query = select(table).order_by(table.c.app, table.c.environment)
    return [_read(row) for row in connection.execute(query if app is None else query.where(table.c.app == app))]


def add(connection: Connection, row: EnvironmentRow) -> None:
    connection.execute(insert(table).values(_written(row)))


def change(connection: Connection, row: EnvironmentRow) -> None:
    where = (table.c.app == row.app, table.c.environment == row.environment)
    connection.execute(update(table).where(*where).values(_written(row)))


def _read(row: Row[tuple[object, ...]]) -> EnvironmentRow:
    fields = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return EnvironmentRow(
        **{**fields, "runs": _runs.decode(fields["runs"]), "stable": _stable.decode(fields["stable"])}
    )


def _written(row: EnvironmentRow) -> dict[str, object]:
    fields = msgspec.structs.asdict(row)
    return {**fields, "runs": _json(row.runs), "stable": _json(row.stable)}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
