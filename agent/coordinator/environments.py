"""Environments of apps: which there are, their settings, their key.

An environment is there once it was set, or, of an app that has a build, where a host serves it; `local` always is. A
mistyped name so is an error and not a new environment.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace
from sqlalchemy import Connection

from agent.coordinator.db import apps, environments
from agent.coordinator.db.engine import Database
from agent.coordinator.db.environments import EnvironmentRow
from agent.coordinator.keys import CoordinatorKey
from agent.errors import NotFoundError
from agent.model.environment import LOCAL_DEFAULTS, EnvironmentSettings
from agent.model.ids import AppName, EnvironmentName
from agent.settings.environment import load_environment

LOCAL: Final = "local"


def settings_of(row: EnvironmentRow) -> EnvironmentSettings:
    return load(row.environment, row.file)


def load(environment: EnvironmentName, file: str) -> EnvironmentSettings:
    """The settings that the text of a file says. Raises SettingsError."""
    defaults = LOCAL_DEFAULTS if environment == LOCAL else EnvironmentSettings()
    return load_environment(file, f"settings of {environment}", defaults)


class Environments:
    """`served` tells which environments any host serves that ever connected."""

    def __init__(
        self, database: Database, key: CoordinatorKey, served: Callable[[], frozenset[EnvironmentName]]
    ) -> None:
        self._database, self._key, self._served = database, key, served

    async def get(self, app: AppName, environment: EnvironmentName) -> EnvironmentRow:
        """Raises NotFoundError."""
        return await self._database.run(lambda connection: self.need(connection, app, environment))

    async def check(self, app: AppName | None, environment: EnvironmentName | None) -> None:
        """Raises NotFoundError where what is asked about does not exist: silence would read as "nothing runs"."""
        if app is not None and environment is not None:
            await self.get(app, environment)
        elif app is not None:
            await self.names(app)

    async def names(self, app: AppName) -> list[EnvironmentName]:
        def read(connection: Connection) -> list[EnvironmentName]:
            need_app(connection, app)
            return sorted({row.environment for row in environments.every(connection, app)} | {EnvironmentName(LOCAL)})

        return await self._database.run(read)

    async def set(self, app: AppName, environment: EnvironmentName, file: str) -> EnvironmentRow:
        """Keep `file` as the settings; what is wrong in it is refused. Raises SettingsError, NotFoundError."""
        load(environment, file)

        def write(connection: Connection) -> EnvironmentRow:
            need_app(connection, app)
            row = environments.get(connection, app, environment) or self._add(connection, app, environment)
            changed = replace(row, file=file)
            environments.change(connection, changed)
            return changed

        return await self._database.run(write)

    def need(self, connection: Connection, app: AppName, environment: EnvironmentName) -> EnvironmentRow:
        """The environment, within a transaction. Raises NotFoundError."""
        row = environments.get(connection, app, environment)
        if row is not None:
            return row
        need_app(connection, app)
        if environment != LOCAL and environment not in self._served():
            raise NotFoundError(
                f"there is no environment {environment} of {app}",
                f"Make it with `rollway env set {app} {environment} --file FILE`, or let a host join that serves it.",
            )
        return self._add(connection, app, environment)

    def _add(self, connection: Connection, app: AppName, environment: EnvironmentName) -> EnvironmentRow:
        key = self._key.new_environment()
        row = EnvironmentRow(app=app, environment=environment, recipient=key.recipient, identity=key.identity)
        environments.add(connection, row)
        return row


def need_app(connection: Connection, app: AppName) -> None:
    known = apps.apps(connection)
    if app not in known:
        raise NotFoundError(
            f"there is no app {app}; there are: {', '.join(known) or 'none yet'}",
            "The first build makes an app known: run `rollway build` in its folder.",
        )
