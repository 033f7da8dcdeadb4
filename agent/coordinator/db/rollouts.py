"""Rows of rollouts, and of the assignments they give."""

from typing import Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, func, select

from agent.coordinator.db.rows import put
from agent.coordinator.db.schema import assignments, rollouts
from agent.model.assignment import Assignment, ReleaseRef
from agent.model.ids import AppName, EnvironmentName, HostName, RolloutId
from agent.model.rollout import Rollout, RolloutState

LISTED_MAX: Final = 100


class _End(Struct, frozen=True):
    """So much of a rollout as says how it ended."""

    release: ReleaseRef
    state: RolloutState


_rollout: Final = msgspec.json.Decoder(Rollout)
_assignment: Final = msgspec.json.Decoder(Assignment)
_end: Final = msgspec.json.Decoder(_End)


def store(connection: Connection, rollout: Rollout) -> None:
    put(
        connection,
        rollouts,
        {"id": rollout.id},
        {
            "app": rollout.app,
            "environment": rollout.environment,
            "state": rollout.state,
            "terminal": int(rollout.terminal),
            "created_ms": rollout.created_ms,
            "json": msgspec.json.encode(rollout).decode(),
        },
    )


def get(connection: Connection, rollout: RolloutId) -> Rollout | None:
    text = connection.execute(select(rollouts.c.json).where(rollouts.c.id == rollout)).scalar_one_or_none()
    return None if text is None else _rollout.decode(text)


def live(connection: Connection) -> list[Rollout]:
    """Those that are not terminal."""
    return [
        _rollout.decode(text) for text in connection.scalars(select(rollouts.c.json).where(rollouts.c.terminal == 0))
    ]


def live_in(connection: Connection, app: AppName, environment: EnvironmentName) -> Rollout | None:
    query = select(rollouts.c.json).where(rollouts.c.terminal == 0)
    query = query.where(rollouts.c.app == app, rollouts.c.environment == environment)
    text = connection.execute(query).scalar_one_or_none()
    return None if text is None else _rollout.decode(text)


def newest_in(connection: Connection, app: AppName, environment: EnvironmentName) -> Rollout | None:
    """The last one that began, over or not."""
    return next(iter(newest(connection, app, environment, listed_max=1)), None)


def ends(connection: Connection, app: AppName, environment: EnvironmentName) -> dict[ReleaseRef, RolloutState]:
    """How far the newest rollout of each release is."""
    query = select(rollouts.c.json).where(rollouts.c.app == app, rollouts.c.environment == environment)
    found = map(_end.decode, connection.scalars(query.order_by(rollouts.c.created_ms, rollouts.c.id)))
    return {end.release: end.state for end in found}


def newest(
    connection: Connection, app: AppName | None, environment: EnvironmentName | None, listed_max: int = LISTED_MAX
) -> list[Rollout]:
    query = select(rollouts.c.json).order_by(rollouts.c.created_ms.desc(), rollouts.c.id.desc()).limit(listed_max)
    if app is not None:
        query = query.where(rollouts.c.app == app)
    if environment is not None:
        query = query.where(rollouts.c.environment == environment)
    return [_rollout.decode(text) for text in connection.scalars(query)]


def assign(connection: Connection, host: HostName, assignment: Assignment) -> None:
    put(
        connection,
        assignments,
        {"host": host, "app": assignment.app, "environment": assignment.environment},
        {"generation": assignment.generation, "json": msgspec.json.encode(assignment).decode()},
    )


def assigned_to(connection: Connection, host: HostName) -> list[Assignment]:
    query = select(assignments.c.json).where(assignments.c.host == host)
    return [_assignment.decode(text) for text in connection.scalars(query)]


def assigned_in(
    connection: Connection, app: AppName, environment: EnvironmentName, only: HostName | None = None
) -> dict[HostName, Assignment]:
    """What each host of the environment holds, or `only` one of them."""
    query = select(assignments.c.host, assignments.c.json)
    query = query.where(assignments.c.app == app, assignments.c.environment == environment)
    if only is not None:
        query = query.where(assignments.c.host == only)
    return {host: _assignment.decode(text) for host, text in connection.execute(query)}


def last_generation(connection: Connection, app: AppName, environment: EnvironmentName) -> int:
    """The highest generation that any host was ever given; 0 without one."""
    query = select(func.coalesce(func.max(assignments.c.generation), 0))
    query = query.where(assignments.c.app == app, assignments.c.environment == environment)
    return int(connection.execute(query).scalar_one())
