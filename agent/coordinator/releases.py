"""Releases: made by an operator's machine, checked here against build and config, kept for ever.

Rules: the bytes that came are the bytes that are kept; a name is given once. Who signed is for the hosts to verify.
"""

from collections.abc import Mapping
from typing import Literal

import anyio.to_thread
from sqlalchemy import Connection

from agent.artifacts import sign
from agent.coordinator.db import apps, rollouts
from agent.coordinator.db.apps import ReleaseRow
from agent.coordinator.db.engine import Database
from agent.coordinator.db.environments import EnvironmentRow
from agent.coordinator.environments import Environments
from agent.errors import NotFoundError, RefusedError
from agent.linux import clock
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, EnvironmentName, ReleaseName
from agent.model.process import AppSpec
from agent.model.release import Release
from agent.model.rollout import RolloutState
from agent.stores.store import Store

ReleaseState = Literal["current", "stable", "failed", ""]
"""What runs, what can be gone back to, what failed when it was last tried; empty: it was not tried, or is long past."""


class Releases:
    def __init__(self, database: Database, store: Store, environments: Environments) -> None:
        self._database, self._store, self._environments = database, store, environments
        self._specs: dict[ReleaseRef, AppSpec] = {}

    async def create(self, app: AppName, environment: EnvironmentName, envelope: bytes) -> Release:
        """Raises RefusedError, NotFoundError, VerificationError."""
        release = sign.verify_release(envelope)
        if (release.app, release.environment) != (app, environment):
            raise RefusedError(
                f"the release is of {release.app} in {release.environment}, not of {app} in {environment}",
                "Send it to the app and environment that it names.",
            )
        row = ReleaseRow(
            app=app,
            environment=environment,
            name=release.name,
            digest=sign.payload_digest(envelope),
            build=release.build,
            version=release.version,
            commit=release.commit,
            created_at_s=release.created_at_s,
            created_ms=clock.now().wall_ms,
        )
        await self._database.run(lambda connection: self._check(connection, release))
        # The store decides who of two gets the name. A row without a file never is; a file without its row (the
        # coordinator was killed in between) is completed here when the same bytes come again.
        try:
            await anyio.to_thread.run_sync(self._store.put_release, app, environment, release.name, envelope)
        except RefusedError:
            stored = await self.envelope(app, environment, release.name)
            known = await self._database.run(
                lambda connection: apps.get_release(connection, app, environment, release.name)
            )
            if known is not None or stored != envelope:
                raise
        await self._database.run(lambda connection: apps.add_release(connection, row))
        return release

    async def list(self, app: AppName, environment: EnvironmentName) -> list[tuple[ReleaseRow, ReleaseState]]:
        """Oldest first, each with what it is to its environment."""

        def read(connection: Connection) -> list[tuple[ReleaseRow, ReleaseState]]:
            row = self._environments.need(connection, app, environment)
            ends = rollouts.ends(connection, app, environment)
            return [
                (release, _state(release, row, ends)) for release in apps.list_releases(connection, app, environment)
            ]

        return await self._database.run(read)

    async def envelope(self, app: AppName, environment: EnvironmentName, name: ReleaseName) -> bytes:
        return await anyio.to_thread.run_sync(self._store.read_release, app, environment, name)

    async def spec(self, app: AppName, environment: EnvironmentName, ref: ReleaseRef) -> AppSpec:
        """The app as a stored release declares it; read once, for a release never changes."""
        if ref not in self._specs:
            envelope = await self.envelope(app, environment, ref.name)
            if sign.payload_digest(envelope) != ref.digest:
                raise RefusedError(
                    f"release {ref.name} is not the one that is stored: its digest is another",
                    f"Look at `rollway release show {app} {environment} {ref.name}`, then ask again.",
                )
            self._specs[ref] = sign.verify_release(envelope).spec
        return self._specs[ref]

    def _check(self, connection: Connection, release: Release) -> None:
        self._environments.need(connection, release.app, release.environment)
        build = apps.get_build(connection, release.app, release.build)
        if build is None:
            raise NotFoundError(
                f"there is no build {release.build} of {release.app}", f"See `rollway build list {release.app}`."
            )
        if build.manifest != release.build_manifest:
            raise RefusedError(
                f"the release names another manifest of build {release.build} than the one that is stored",
                "Create it from the build that is stored.",
            )
        config = apps.get_config(connection, release.app, release.environment, release.config_version)
        if release.config_version and config is None:
            raise RefusedError(f"there is no version {release.config_version} of the config", "Create it again.")
        if (config.values if config else {}) != release.config:
            raise RefusedError(
                f"the release's config is not version {release.config_version} of {release.environment}'s",
                "Create it again from the config that is stored.",
            )
        for key, declared in release.spec.config.items():
            value = release.config.get(key)
            if declared.required and value is None:
                raise RefusedError(
                    f"the app requires the config {key}, and {release.environment} has none",
                    f"Set it: `rollway config set {release.app} {release.environment} {key}=…`.",
                )
            if declared.secret and value is not None and value.age is None:
                raise RefusedError(
                    f"the app declares {key} secret, and its value is plain",
                    f"Set it again: `rollway config set {release.app} {release.environment} --secret {key}=…`.",
                )


def _state(release: ReleaseRow, row: EnvironmentRow, ends: Mapping[ReleaseRef, RolloutState]) -> ReleaseState:
    ref = ReleaseRef(name=release.name, digest=release.digest)
    if ref == row.runs:
        return "current"
    if ref in row.stable:
        return "stable"
    return "failed" if ends.get(ref) in ("failed", "rolled_back") else ""
