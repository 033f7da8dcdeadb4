"""New counts for an environment: into its settings, and to every host at once, without a swap.

Rules: settings and assignments are stored in one transaction, before any host hears of it: killed anywhere, all of it
holds or nothing. While a rollout is under way nobody scales: which counts a host has there is the rollout's alone.
Not handled here: what a host makes of its counts (decisions.swap.scale).
"""

from collections.abc import Mapping
from typing import Final

import anyio
import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from agent.coordinator.builds import Builds
from agent.coordinator.db import environments, rollouts
from agent.coordinator.db.engine import Database
from agent.coordinator.db.environments import EnvironmentRow
from agent.coordinator.environments import Environments, load, settings_of
from agent.coordinator.hosts import Hosts
from agent.coordinator.orders import refuse_second
from agent.coordinator.releases import Releases
from agent.decisions.rollout import scale
from agent.decisions.rollout.scale import HostScale, ScaleState
from agent.errors import NotFoundError, RefusedError
from agent.linux import clock
from agent.model.assignment import Assignment
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName, ReleaseName, RolloutId
from agent.model.process import AppSpec
from agent.settings.environment import in_environment
from agent.settings.scaled import with_counts
from agent.wire.canonical import digest_of

WAIT_S_MAX: Final = 60.0
LOOK_AGAIN_S: Final = 0.25
"""How often at most it is looked what hosts say: a large fleet says much."""


class Shown(Struct, frozen=True, kw_only=True):
    """Where an environment is with its counts."""

    app: AppName
    environment: EnvironmentName
    release: ReleaseName | None
    state: ScaleState
    counts: dict[ProcessName, int]
    """By process type and host: the app's own, and over them those of the settings."""
    hosts: tuple[HostScale, ...] = ()
    stragglers: tuple[HostName, ...] = ()
    rollout: RolloutId | None = None
    """One that is under way, and brings its counts to each host."""

    @property
    def version(self) -> str:
        """To ask for what comes after it."""
        return digest_of(msgspec.json.encode(self))


class Scaling:
    def __init__(
        self, database: Database, kept: Environments, builds: Builds, releases: Releases, hosts: Hosts
    ) -> None:
        self._database, self._environments, self._hosts = database, kept, hosts
        self._builds, self._releases = builds, releases

    async def change(self, app: AppName, environment: EnvironmentName, counts: Mapping[ProcessName, int]) -> bool:
        """Set the counts; whether anything is other than before. Raises NotFoundError, RefusedError, SettingsError."""
        runs = (await self._environments.get(app, environment)).runs
        spec = await self._releases.spec(app, environment, runs) if runs is not None else None
        await self._check_types(app, spec, counts)
        where = f"settings of {environment}"

        def write(connection: Connection) -> tuple[EnvironmentRow, bool, dict[HostName, Assignment]]:
            row = self._environments.need(connection, app, environment)
            refuse_second(rollouts.live_in(connection, app, environment))
            if row.runs != runs:
                raise RefusedError(f"{app} in {environment} was swapped meanwhile", "Look at it, and ask again.")
            before, declared = settings_of(row), _declared(spec)
            same = all(before.scale.get(name, declared.get(name)) == count for name, count in counts.items())
            changed = row if same else msgspec.structs.replace(row, file=with_counts(row.file, counts, where))
            settings = load(environment, changed.file)
            given: dict[HostName, Assignment] = {}
            if spec is not None:
                in_environment(spec, settings, where)
                held = rollouts.assigned_in(connection, app, environment)
                given = scale.scaled(held, self._hosts.members(environment, settings), counts, declared)
            environments.change(connection, changed)
            for host, assignment in given.items():
                rollouts.assign(connection, host, assignment)
            return changed, not same or bool(given), given

        row, is_new, given = await self._database.run(write)
        self._hosts.send(given, row)
        return is_new

    async def watch(self, app: AppName, environment: EnvironmentName, after: str | None, wait_s: float) -> Shown:
        """Where it is as soon as that is no more what `after` is the version of, at the latest after `wait_s`."""
        shown = await self._look(app, environment)
        with anyio.move_on_after(min(wait_s, WAIT_S_MAX)):
            while shown.version == after:
                with anyio.move_on_after(WAIT_S_MAX / 10):  # that a host has been away for long is nobody's word
                    await self._hosts.changed()
                await anyio.sleep(LOOK_AGAIN_S)
                shown = await self._look(app, environment)
        return shown

    async def _look(self, app: AppName, environment: EnvironmentName) -> Shown:
        def read(connection: Connection) -> tuple[EnvironmentRow, dict[HostName, Assignment], RolloutId | None]:
            row = self._environments.need(connection, app, environment)
            live = rollouts.live_in(connection, app, environment)
            return row, rollouts.assigned_in(connection, app, environment), live.id if live is not None else None

        row, held, rollout = await self._database.run(read)
        settings = settings_of(row)
        if row.runs is None:
            return Shown(
                app=app, environment=environment, release=None, state="done", counts=settings.scale, rollout=rollout
            )
        declared = scale.per_host(await self._releases.spec(app, environment, row.runs))
        hosts = tuple(
            self._host(host, held[host], declared)
            for host in self._hosts.members(environment, settings)
            if host in held and held[host].release is not None
        )
        return Shown(
            app=app,
            environment=environment,
            release=row.runs.name,
            state=scale.state(hosts),
            counts={name: settings.scale.get(name, count) for name, count in declared.items()},
            hosts=hosts,
            stragglers=tuple(host.host for host in hosts if host.state in scale.STRAGGLERS),
            rollout=rollout,
        )

    def _host(self, host: HostName, has: Assignment, declared: Mapping[ProcessName, int]) -> HostScale:
        away_ms = None
        if not self._hosts.links.is_connected(host):
            away_ms = clock.now().wall_ms - self._hosts.since_ms(host)
        return scale.look(host, has, self._hosts.report(host, has.app, has.environment), declared, away_ms)

    async def _check_types(self, app: AppName, spec: AppSpec | None, counts: Mapping[ProcessName, int]) -> None:
        known = (
            tuple(process.name for process in spec.processes)
            if spec is not None
            else await self._builds.types(app, counts.keys())
        )
        for name in counts:
            if name not in known:
                raise NotFoundError(
                    f"there is no process type {name} of {app}; there are: {', '.join(known)}",
                    "Name one of them, or swap to a release that has it.",
                )


def _declared(spec: AppSpec | None) -> dict[ProcessName, int]:
    return {process.name: process.count for process in spec.processes} if spec is not None else {}
