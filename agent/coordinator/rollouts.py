"""Rollouts of all environments: begins them, lets each be decided by its own actor, and what comes after one.

Rules: what an order asks for is checked in the same transaction that stores the rollout, so of two orders one is
refused; a decision is committed with the assignments it gives before any host hears of it; at the start of the
coordinator every rollout goes on. Hosts in no rollout converge to what their environment runs.
Not handled here: which host moves when (decisions.rollout).
"""

from collections.abc import Sequence
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus
from msgspec.structs import replace
from sqlalchemy import Connection

from agent.coordinator.actor import Actor, Word
from agent.coordinator.db import apps, environments, rollouts
from agent.coordinator.db.engine import Database
from agent.coordinator.db.environments import EnvironmentRow
from agent.coordinator.environments import settings_of
from agent.coordinator.hosts import Hosts
from agent.decisions.rollout import stable
from agent.decisions.rollout.converge import as_others_run_it, converge
from agent.decisions.rollout.state import (
    Begin,
    Ended,
    Give,
    HostsChanged,
    Reachable,
    Reported,
    Restarted,
    RolloutDecision,
    RolloutEvent,
)
from agent.decisions.rollout.step import step
from agent.errors import FailedError, NotFoundError, RefusedError
from agent.linux import clock
from agent.model.assignment import AppReport, Assignment, Overrides
from agent.model.ids import AppName, EnvironmentName, HostName, RolloutId
from agent.model.rollout import Rollout

WAIT_S_MAX: Final = 60.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Rollouts:
    """Owner of every rollout that is not terminal; follows what hosts do."""

    def __init__(self, database: Database, hosts: Hosts, epoch: int) -> None:
        self._database, self._hosts, self._epoch = database, hosts, epoch
        self._actors: dict[RolloutId, Actor] = {}
        self._tasks: TaskGroup

    @property
    def under_way(self) -> int:
        """How many."""
        return len(self._actors)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Go on with what is stored, then with what comes, until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            for rollout in await self._database.run(rollouts.live):
                self.start(rollout, (Restarted(),))
            task_status.started()
            await anyio.sleep_forever()

    def start(self, rollout: Rollout, events: Sequence[RolloutEvent] = (Begin(),)) -> None:
        """Go on with a rollout that is stored."""
        actor = Actor(rollout, self._commit)
        self._actors[rollout.id] = actor
        for event in events:
            actor.put(event)
        self._tasks.start_soon(self._act, actor)

    async def get(self, rollout: RolloutId) -> Rollout:
        """Raises NotFoundError."""
        if (actor := self._actors.get(rollout)) is not None:
            return actor.rollout
        stored = await self._database.run(lambda connection: rollouts.get(connection, rollout))
        if stored is None:
            raise NotFoundError(f"there is no rollout {rollout}", "See `rollway rollout list`.")
        return stored

    async def watch(self, rollout: RolloutId, after_ms: int, wait_s: float) -> Rollout:
        """The rollout as soon as it has changed after `after_ms`, at the latest after `wait_s`."""
        if (actor := self._actors.get(rollout)) is not None:
            with anyio.move_on_after(min(wait_s, WAIT_S_MAX)):
                await actor.wait_changed(after_ms)
        return await self.get(rollout)

    async def say(self, rollout: RolloutId, word: Word) -> Rollout:
        """Raises RefusedError where the rollout's state does not know the word, NotFoundError."""
        if (actor := self._actors.get(rollout)) is not None:
            return await actor.say(word)
        refused = step(await self.get(rollout), word, clock.now()).refused
        raise RefusedError(refused, "See `rollway rollout show`.")

    async def converge(self, app: AppName, environment: EnvironmentName, only: HostName | None = None) -> None:
        """Give hosts that are in no rollout what the environment runs; all of its hosts, or `only` one."""

        def write(connection: Connection) -> tuple[EnvironmentRow, dict[HostName, Assignment]] | None:
            row = environments.get(connection, app, environment)
            if row is None or not row.order:
                return None
            settings = settings_of(row)
            if only is None:
                hosts = self._hosts.members(environment, settings)
            else:
                hosts = (only,) if self._hosts.belongs(only, environment, settings) else ()
            gives = converge(
                runs=row.runs,
                back_to=stable.target(row.stable, row.runs),
                hosts=hosts,
                assigned=rollouts.assigned_in(connection, app, environment, only),
                rollout_is_live=rollouts.live_in(connection, app, environment) is not None,
            )
            if gives:
                held = rollouts.assigned_in(connection, app, environment)
                others = self._hosts.members(environment, settings)
                gives = as_others_run_it(gives, {host: held[host] for host in others if host in held})
            return row, self._assign(connection, row, row.order, gives)

        if (written := await self._database.run(write)) is not None:
            row, assignments = written
            self._hosts.send(assignments, row)

    async def settings_changed(self, row: EnvironmentRow) -> None:
        """Other hosts may belong to the environment now."""
        members = self._hosts.members(row.environment, settings_of(row))
        for actor in self._in(row.app, row.environment):
            actor.put(HostsChanged(hosts=members))
        await self.converge(row.app, row.environment)

    async def hosts_changed(self) -> None:
        """A host was removed, or its labels are others: it may have left environments, or come into some."""
        for row in await self._database.run(environments.every):
            await self.settings_changed(row)

    async def host_connected(self, host: HostName) -> None:
        for row in await self._database.run(environments.every):
            if not self._hosts.serves(host, row.environment):
                continue
            for actor in self._in(row.app, row.environment):
                if all(step.host != host for step in actor.rollout.hosts):
                    actor.put(HostsChanged(hosts=self._hosts.members(row.environment, settings_of(row))))
                actor.put(Reachable(host=host, reachable=True))
            await self.converge(row.app, row.environment, only=host)

    def host_reported(self, host: HostName, report: AppReport) -> None:
        for actor in self._in(report.app, report.environment):
            actor.put(Reported(host=host, report=report))

    def host_disconnected(self, host: HostName) -> None:
        for actor in self._actors.values():
            actor.put(Reachable(host=host, reachable=False))

    def _in(self, app: AppName, environment: EnvironmentName) -> list[Actor]:
        actors = self._actors.values()
        return [actor for actor in actors if (actor.rollout.app, actor.rollout.environment) == (app, environment)]

    async def _act(self, actor: Actor) -> None:
        await actor.run()
        rollout = actor.rollout
        del self._actors[rollout.id]
        log.info("rollout ended", rollout=rollout.id, state=rollout.state, reason=rollout.reason)
        try:
            await self.converge(rollout.app, rollout.environment)
        except FailedError as error:
            log.error("hosts outside the rollout converge when they connect again", reason=error.error)  # noqa: TRY400

    async def _commit(self, decision: RolloutDecision) -> None:
        """Store the decision and what it gives, whole; then send. Raises FailedError when it cannot be stored."""
        rollout = decision.state
        gives = [action for action in decision.actions if isinstance(action, Give)]
        ended = next((action for action in decision.actions if isinstance(action, Ended)), None)

        def write(connection: Connection) -> tuple[EnvironmentRow, dict[HostName, Assignment]]:
            row = environments.get(connection, rollout.app, rollout.environment)
            if row is None:
                raise NotFoundError(f"there is no environment {rollout.environment} of {rollout.app}")
            rollouts.store(connection, rollout)
            if ended is not None:
                stack = stable.after(row.stable, rollout.kind, ended)
                environments.change(connection, replace(row, runs=ended.runs, stable=stack))
                if ended.healthy and ended.runs is not None:
                    apps.mark_healthy(connection, rollout.app, rollout.environment, ended.runs.name)
            return row, self._assign(connection, row, rollout.order, gives)

        row, assignments = await self._database.run(write)
        self._hosts.send(assignments, row)

    def _assign(
        self, connection: Connection, row: EnvironmentRow, order: str, gives: Sequence[Give]
    ) -> dict[HostName, Assignment]:
        """Complete what was decided by what the environment says, and store it."""
        settings = settings_of(row)
        now = Overrides(counts=settings.scale, listen=settings.listen, linger_ms=settings.linger_ms)
        assignments: dict[HostName, Assignment] = {}
        for give in gives:
            overrides = now if give.overrides is None else give.overrides
            assignments[give.host] = Assignment(
                app=row.app,
                environment=row.environment,
                epoch=self._epoch,
                generation=give.generation,
                release=give.release,
                order=order,
                prepare=give.prepare,
                admin=give.admin,
                counts=overrides.counts,
                listen=overrides.listen,
                min_ready_ms=settings.rolling.min_ready_ms,
                deadline_ms=settings.rolling.deadline_ms,
                linger_ms=overrides.linger_ms,
            )
            rollouts.assign(connection, give.host, assignments[give.host])
        return assignments
