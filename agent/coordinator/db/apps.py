"""Rows of builds, configs and releases: what is only ever added."""

from typing import Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, insert, select, update

from agent.coordinator.db.schema import builds, configs, releases
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName
from agent.model.release import ConfigValue
from agent.model.units import Milliseconds

_values: Final = msgspec.json.Decoder(dict[str, ConfigValue])
_names: Final = msgspec.json.Decoder(frozenset[str])


class BuildRow(Struct, frozen=True, kw_only=True):
    app: AppName
    id: Digest
    manifest: Digest
    version: str
    commit: str
    committed_at_s: int
    size_bytes: int
    secrets: frozenset[str] = frozenset()
    """Config keys that the build declares secret."""
    created_ms: Milliseconds


class ConfigRow(Struct, frozen=True, kw_only=True):
    version: int = 0
    values: dict[str, ConfigValue] = {}
    secrets: frozenset[str] = frozenset()
    """Keys that were ever secret."""


class ReleaseRow(Struct, frozen=True, kw_only=True):
    app: AppName
    environment: EnvironmentName
    name: ReleaseName
    digest: Digest
    build: Digest
    version: str
    commit: str
    created_at_s: int
    created_ms: Milliseconds
    healthy: int = 0


def apps(connection: Connection) -> list[AppName]:
    return list(connection.scalars(select(builds.c.app).distinct().order_by(builds.c.app)))


def list_builds(connection: Connection, app: AppName) -> list[BuildRow]:
    query = select(builds).where(builds.c.app == app).order_by(builds.c.created_ms, builds.c.id)
    return [_build(row) for row in connection.execute(query)]


def get_build(connection: Connection, app: AppName, build: Digest) -> BuildRow | None:
    row = connection.execute(select(builds).where(builds.c.app == app, builds.c.id == build)).one_or_none()
    return None if row is None else _build(row)


def add_build(connection: Connection, row: BuildRow) -> None:
    if get_build(connection, row.app, row.id) is None:
        fields = msgspec.structs.asdict(row)
        connection.execute(insert(builds).values({**fields, "secrets": _json(sorted(row.secrets))}))


def get_config(
    connection: Connection, app: AppName, environment: EnvironmentName, version: int | None = None
) -> ConfigRow | None:
    """The newest, or that of `version`."""
    query = select(configs.c.version, configs.c["values"], configs.c.secrets)
    query = query.where(configs.c.app == app, configs.c.environment == environment)
    query = query.order_by(configs.c.version.desc()).limit(1)
    row = connection.execute(query if version is None else query.where(configs.c.version == version)).one_or_none()
    if row is None:
        return None
    number, values, secrets = row
    return ConfigRow(version=number, values=_values.decode(values), secrets=_names.decode(secrets))


def add_config(
    connection: Connection, app: AppName, environment: EnvironmentName, row: ConfigRow, now_ms: Milliseconds
) -> None:
    connection.execute(
        insert(configs).values(
            {
                "app": app,
                "environment": environment,
                "version": row.version,
                "values": _json(row.values),
                "secrets": _json(sorted(row.secrets)),
                "created_ms": now_ms,
            }
        )
    )


def list_releases(connection: Connection, app: AppName, environment: EnvironmentName) -> list[ReleaseRow]:
    """Oldest first."""
    query = select(releases).where(releases.c.app == app, releases.c.environment == environment)
    return [_release(row) for row in connection.execute(query.order_by(releases.c.created_ms, releases.c.name))]


def get_release(
    connection: Connection, app: AppName, environment: EnvironmentName, name: ReleaseName
) -> ReleaseRow | None:
    query = select(releases).where(releases.c.app == app, releases.c.environment == environment)
    row = connection.execute(query.where(releases.c.name == name)).one_or_none()
    return None if row is None else _release(row)


def add_release(connection: Connection, row: ReleaseRow) -> None:
    """Also when it is there: who gets a name is decided by the store."""
    if get_release(connection, row.app, row.environment, row.name) is None:
        connection.execute(insert(releases).values(msgspec.structs.asdict(row)))


def mark_healthy(connection: Connection, app: AppName, environment: EnvironmentName, name: ReleaseName) -> None:
    where = (releases.c.app == app, releases.c.environment == environment, releases.c.name == name)
    connection.execute(update(releases).where(*where).values(healthy=1))


def _build(row: Row[tuple[object, ...]]) -> BuildRow:
    fields = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return BuildRow(**{**fields, "secrets": _names.decode(fields["secrets"])})


def _release(row: Row[tuple[object, ...]]) -> ReleaseRow:
    return ReleaseRow(**dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's public name for it


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
