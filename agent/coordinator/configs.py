"""Config of environments: every change is a new version, made from the newest, and none is ever changed.

Rules: a change names the version that it was made from, and is refused when there is a newer one; a key that was ever
secret, or that a build declares secret, takes no plain value.
"""

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection

from agent.coordinator.db import apps
from agent.coordinator.db.apps import ConfigRow
from agent.coordinator.db.engine import Database
from agent.coordinator.db.environments import EnvironmentRow
from agent.coordinator.environments import Environments
from agent.errors import NotFoundError, RefusedError, UsageError
from agent.linux import clock
from agent.model.ids import CONFIG_KEY_EXPECTED, AppName, EnvironmentName, is_config_key
from agent.model.release import ConfigValue


class Change(msgspec.Struct, frozen=True):
    """What a client asks for."""

    base_version: int
    set: dict[str, ConfigValue] = {}
    unset: tuple[str, ...] = ()


class Configs:
    def __init__(self, database: Database, environments: Environments) -> None:
        self._database, self._environments = database, environments

    async def get(
        self, app: AppName, environment: EnvironmentName, version: int | None
    ) -> tuple[EnvironmentRow, ConfigRow]:
        """The environment and its newest config, or that of `version`, with every key that must stay secret."""

        def read(connection: Connection) -> tuple[EnvironmentRow, ConfigRow]:
            row = self._environments.need(connection, app, environment)
            found = apps.get_config(connection, app, environment, version)
            if found is None and version:
                raise NotFoundError(f"there is no version {version} of the config of {app} in {environment}")
            config = found or ConfigRow()
            return row, msgspec.structs.replace(config, secrets=config.secrets | _declared(connection, app))

        return await self._database.run(read)

    async def change(self, app: AppName, environment: EnvironmentName, change: Change) -> int:
        """The new version. Raises RefusedError, UsageError."""
        _check_keys([*change.set, *change.unset])
        now_ms = clock.now().wall_ms

        def write(connection: Connection) -> int:
            self._environments.need(connection, app, environment)
            newest = apps.get_config(connection, app, environment) or ConfigRow()
            if change.base_version != newest.version:
                raise RefusedError(
                    f"the change was made from version {change.base_version}, but the newest is {newest.version}",
                    f"Look at what changed (`rollway config get {app} {environment}`), then ask again.",
                )
            secrets = newest.secrets | _declared(connection, app)
            _refuse_plain(change.set, secrets)
            values = {key: value for key, value in newest.values.items() if key not in change.unset} | change.set
            known = newest.secrets | {key for key, value in change.set.items() if value.age is not None}
            row = ConfigRow(version=newest.version + 1, values=values, secrets=known)
            apps.add_config(connection, app, environment, row, now_ms)
            return row.version

        return await self._database.run(write)


def _declared(connection: Connection, app: AppName) -> frozenset[str]:
    """Keys that the newest build of the app declares secret."""
    builds = apps.list_builds(connection, app)
    return builds[-1].secrets if builds else frozenset()


def _check_keys(keys: Sequence[str]) -> None:
    wrong = [key for key in keys if not is_config_key(key)]
    if wrong:
        raise UsageError(f"expected {CONFIG_KEY_EXPECTED}, found {wrong[0][:128]!r}", "Rename the key.")


def _refuse_plain(values: Mapping[str, ConfigValue], secrets: frozenset[str]) -> None:
    plain = sorted(key for key, value in values.items() if value.plain is not None and key in secrets)
    if plain:
        raise RefusedError(
            f"{', '.join(plain)} is secret and takes no plain value", "Set it with `rollway config set --secret`."
        )
