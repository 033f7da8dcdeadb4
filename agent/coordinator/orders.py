"""From a signed order to a rollout: everything that may be refused before anything is done.

Rules: an order is read by artifacts.sign alone; it names what it replaces, and is refused when something else runs by
now; its number follows the last one's; one rollout at a time per app and environment.
"""

from datetime import UTC, datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from agent.artifacts import sign
from agent.coordinator.db import apps, environments, rollouts
from agent.coordinator.db.engine import Database
from agent.coordinator.db.environments import EnvironmentRow
from agent.coordinator.environments import Environments, settings_of
from agent.coordinator.hosts import Hosts
from agent.coordinator.releases import Releases
from agent.decisions.rollout import begin, stable
from agent.errors import RefusedError
from agent.linux import clock
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, EnvironmentName, RolloutId
from agent.model.process import AppSpec
from agent.model.release import Order
from agent.model.rollout import HostStep, Rollout
from agent.settings.environment import in_environment

ORDER_BYTES_MAX: Final = 64 << 10
"""An order travels in every assignment, which must fit a frame of the link."""


class Asked(Struct, frozen=True, kw_only=True):
    """What an operator asks for, beside the order."""

    app: AppName
    environment: EnvironmentName
    order: str
    asked_by: str
    rollout_id: RolloutId
    plan_only: bool = False


class Orders:
    def __init__(self, database: Database, releases: Releases, environments_: Environments, hosts: Hosts) -> None:
        self._database, self._releases, self._environments, self._hosts = database, releases, environments_, hosts

    async def take(self, asked: Asked) -> Rollout:
        """The rollout: stored as planned; or, with an empty id, what says that there is nothing to do.

        With `plan_only` nothing is stored. Raises RefusedError, NotFoundError, VerificationError, SettingsError.
        """
        if len(asked.order) > ORDER_BYTES_MAX:
            raise RefusedError(f"the order has {len(asked.order)} bytes, at most {ORDER_BYTES_MAX} are taken")
        order = sign.verify_order(asked.order.encode())
        if (order.app, order.environment) != (asked.app, asked.environment):
            raise RefusedError(
                f"the order is for {order.app} in {order.environment}, not for {asked.app} in {asked.environment}",
                "Sign it for the app and environment that are to change.",
            )
        await self._environments.get(order.app, order.environment)
        ref = ReleaseRef(name=order.release, digest=order.release_digest)
        spec = await self._releases.spec(order.app, order.environment, ref)

        def write(connection: Connection) -> Rollout:
            row = self._environments.need(connection, order.app, order.environment)
            in_environment(spec, settings_of(row), f"settings of {row.environment}")
            refuse_second(rollouts.live_in(connection, order.app, order.environment))
            rollout = self._planned(connection, row, order, spec, asked)
            if _runs_everywhere(self._hosts, row, rollout):
                return replace(rollout, id=RolloutId(""), state="done", reason=_nothing_to_do(rollout))
            self._check(connection, row, order)
            if order.kind == "swap":
                _refuse_older_agents(self._hosts, spec, rollout)
            if not asked.plan_only:
                rollouts.store(connection, rollout)
                environments.change(connection, replace(row, sequence=order.sequence, order=asked.order))
            return rollout

        return await self._database.run(write)

    def _planned(
        self, connection: Connection, row: EnvironmentRow, order: Order, spec: AppSpec, asked: Asked
    ) -> Rollout:
        settings, now_ms = settings_of(row), clock.now().wall_ms
        members = self._hosts.members(row.environment, settings)
        if not members:
            raise RefusedError(
                f"no host has joined environment {row.environment}",
                f"Name it under `environments` in the agent.toml of a host, or look at the settings' `hosts` "
                f"(`rollway env show {row.app} {row.environment}`).",
            )
        held = rollouts.assigned_in(connection, row.app, row.environment)
        steps = tuple(
            HostStep(
                host=host,
                reachable=self._hosts.links.is_connected(host),
                since_ms=now_ms,
                away_since_ms=0 if self._hosts.links.is_connected(host) else self._hosts.since_ms(host),
                before=held[host].overrides if host in held and held[host].release is not None else None,
            )
            for host in members
        )
        return begin.plan(
            rollout_id=asked.rollout_id,
            order=order,
            envelope=asked.order,
            settings=settings,
            spec=spec,
            hosts=steps,
            first_generation=rollouts.last_generation(connection, row.app, row.environment) + 1,
            asked_by=asked.asked_by,
            now_ms=now_ms,
        )

    def _check(self, connection: Connection, row: EnvironmentRow, order: Order) -> None:
        runs = (row.runs.name, row.runs.digest) if row.runs is not None else (None, None)
        if (order.replaces, order.replaces_digest) != runs:
            raise RefusedError(
                f"the order replaces {order.replaces or 'nothing'}, but {row.app} in {row.environment} runs "
                f"{runs[0] or 'nothing'} now",
                "Somebody else changed it meanwhile: look at `rollway status`, then ask again.",
            )
        if order.sequence != row.sequence + 1:
            raise RefusedError(
                f"the order has number {order.sequence}, but the next one is {row.sequence + 1}",
                "Another order was given meanwhile: look at `rollway rollout list`, then ask again.",
            )
        if order.kind == "rollback":
            _check_target(connection, row, order)


def _check_target(connection: Connection, row: EnvironmentRow, order: Order) -> None:
    back_to = stable.target(row.stable, row.runs)
    release = apps.get_release(connection, row.app, row.environment, order.release)
    if release is not None and release.healthy:
        return
    if back_to is None:
        raise stable.dead_end(row.app, row.environment, row.stable, row.runs)
    raise RefusedError(
        f"{order.release} was never healthy in {row.environment}: a rollback leads to a release that was",
        f"Roll back to {back_to.name}, or swap to {order.release}.",
    )


def refuse_second(live: Rollout | None) -> None:
    """Raise RefusedError while a rollout is under way, saying whose and how far."""
    if live is not None:
        since = datetime.fromtimestamp(live.created_ms / 1000, UTC).isoformat(timespec="seconds")
        raise RefusedError(
            f"{live.asked_by} is bringing {live.release.name} to {live.app} in {live.environment} since {since}: "
            f"rollout {live.id} is {live.state}",
            f"Wait for it (`rollway rollout watch {live.id}`), or end it (`rollway rollout abort {live.id}`).",
        )


def _refuse_older_agents(hosts: Hosts, spec: AppSpec, rollout: Rollout) -> None:
    single = next((process.name for process in spec.processes if process.singleton or process.total), None)
    older = [hello.host for hello in hosts.hellos if not hello.leases]
    if single is not None and (found := [step.host for step in rollout.hosts if step.host in older]):
        raise RefusedError(
            f"{single} counts in the whole environment, and the agent of {', '.join(found)} is of a version that does "
            "not know this: it would start one of its own",
            "Upgrade the agent there.",
        )


def _runs_everywhere(hosts: Hosts, row: EnvironmentRow, rollout: Rollout) -> bool:
    """Whether the release is what the environment runs, and no connected host says that it is not so there."""
    if rollout.release != row.runs:
        return False
    reports = [hosts.report(step.host, row.app, row.environment) for step in rollout.hosts]
    return all(
        report.release == rollout.release.name and report.state != "failed" for report in reports if report is not None
    )


def _nothing_to_do(rollout: Rollout) -> str:
    return f"nothing done: {rollout.release.name} runs already"
