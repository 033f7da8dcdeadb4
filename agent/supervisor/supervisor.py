"""All instances of one host: started when the host says so, watched, drained, shown.

Rules: everything that is started lives in the one task group of `run`. What an earlier agent left is taken up (`left`,
`adopt`), but for admin processes and what nobody can read a record of: they are ended before anything is launched. A
cancelled supervisor leaves living instances alone, as a killed one would: whoever goes away for good drains first. Not
handled here: which release, and traffic.
"""

import contextlib
import itertools
import operator
import os
import random
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus

from agent.decisions.swap.state import InstanceView
from agent.errors import invariant
from agent.linux import cgroup, clock, journal
from agent.linux.executable import ExecFailure
from agent.linux.fdstore import FdStore, Inherited
from agent.linux.killtree import Tree, end_tree
from agent.linux.launcher import Launcher
from agent.linux.mounts import is_in_memory
from agent.linux.spawn import Rlimits
from agent.model.figures import InstanceFigures
from agent.model.ids import AppName, EnvironmentName
from agent.model.process import ProcessType, ReleaseCommand
from agent.model.units import Milliseconds
from agent.supervisor import oneoff
from agent.supervisor.attended import Attended, watching
from agent.supervisor.gauge import Gauge
from agent.supervisor.guards import Guards
from agent.supervisor.instance import Instance
from agent.supervisor.launchable import AdminCommand, AdminExit, InstanceKey, Launchable, WatchedCommand
from agent.supervisor.logs import Follower, LinesOf, Logs, Outlet, as_json, matching
from agent.supervisor.preflight import refusal
from agent.supervisor.process import NO_ROOM, UNKEPT, wait_for_room
from agent.supervisor.records import Record, Records, Unreadable
from agent.supervisor.resume import missing
from agent.supervisor.surroundings import OnChange, OnEvent, Surroundings

LAUNCHES_A_CORE: Final = 2
"""Measured: with more at once hundreds are not started sooner, and the loop, probes in it, is late by half a second."""

_BY_PLACE: Final = operator.attrgetter("process", "slot")


def launches_at_once() -> int:
    return LAUNCHES_A_CORE * len(os.sched_getaffinity(0))


class Supervisor:
    """`on_change` and `on_event` are called from the loop, between two steps of an instance: they must not block."""

    def __init__(
        self,
        *,
        run_dir: Path,
        outlet: Outlet,
        on_change: OnChange,
        on_event: OnEvent,
        store: FdStore | None = None,
        inherited: Inherited | None = None,
        drops_logs: bool = False,
        ring_bytes: int = journal.KEPT_BYTES,
        lines: LinesOf = as_json,
        cgroup_root: Path | None = None,
        has_room: Callable[[], bool] = lambda: True,
        rlimits: Rlimits | None = None,
        launches: int | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        store, inherited = store or FdStore(None), inherited or Inherited({})
        self._around: Final = Surroundings(
            run_dir=run_dir,
            records=Records(run_dir / "records"),
            logs=Logs(outlet, store, inherited, drops=drops_logs, kept_bytes=ring_bytes, lines=lines),
            store=store,
            inherited=inherited,
            guards=Guards(run_dir, cgroup_root),
            launcher=Launcher(),
            in_memory=is_in_memory(run_dir),
            jitter=jitter,
            cgroup_root=cgroup_root,
            has_room=has_room,
            rlimits=rlimits or {},
            launches=anyio.Semaphore(launches or launches_at_once(), fast_acquire=True),
            on_change=on_change,
            on_event=on_event,
        )
        self.guards: Final = self._around.guards
        """Leases of singletons."""
        self._on_change = on_change
        self._on_event = on_event
        self._instances: dict[InstanceKey, Instance] = {}
        self._left: dict[InstanceKey, Record] = {}
        self._tasks: TaskGroup | None = None
        self._numbers = itertools.count(1)
        self._gauge = Gauge()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """The owner of all that is started; ready once it is known what an earlier agent has left."""
        await to_thread.run_sync(self.guards.load)
        with contextlib.closing(self._around.launcher) as launcher:
            launcher.begin()
            await self._find_left()
            async with anyio.create_task_group() as self._tasks:
                self.guards.tasks = self._tasks
                task_status.started()
                await anyio.sleep_forever()

    def left(self, app: AppName, environment: EnvironmentName) -> list[Record]:
        """Instances of an earlier agent that nobody has taken up yet."""
        return [record for key, record in self._left.items() if (key.app, key.environment) == (app, environment)]

    def left_apps(self) -> set[tuple[AppName, EnvironmentName]]:
        """Of what there are such instances."""
        return {(key.app, key.environment) for key in self._left}

    def adopt(self, launchable: Launchable) -> None:
        """Take up the instance that an earlier agent left under this key: its process is not touched."""
        self._begin(launchable, self._left.pop(launchable.key))
        if launchable.type.singleton and self._tasks is not None:
            self._tasks.start_soon(self.guards.keep, launchable.key.lease)

    async def until_taken_up(self) -> None:
        """Wait until every instance has what was left of it: what is inherited and not taken then is nobody's."""
        for instance in list(self._instances.values()):
            if instance.taken_up is not None:
                await instance.taken_up.wait()

    def launch(self, launchable: Launchable) -> None:
        """Keep this instance running. Does nothing while one lives under the key; a stopped one is forgotten first."""
        known = self._instances.get(launchable.key)
        if known is not None:
            invariant(known.view.state != "stopped", f"{launchable.key} has stopped and was not forgotten")
            return
        self._begin(launchable, None)

    def _begin(self, launchable: Launchable, left: Record | None) -> None:
        key = launchable.key
        invariant(self._tasks is not None, "the supervisor does not run yet")
        instance = Instance(self._around, launchable, left)
        self._instances[key] = instance
        if self._tasks is not None:
            self._tasks.start_soon(instance.run)
        self._on_change(key.app, key.environment)

    def stop(self, key: InstanceKey, linger_ms: Milliseconds | None = None) -> None:
        """Begin the drain; the view says "stopped" once nothing is left. Asking again changes nothing."""
        if key in self._instances:
            self._instances[key].stop(linger_ms)

    def forget(self, key: InstanceKey) -> None:
        """The instance has stopped and its place is free."""
        if key in self._instances:
            invariant(self._instances[key].view.state == "stopped", f"{key} has not stopped")
            del self._instances[key]
            self._gauge.forget(key)
            self._around.records.remove(key)
            self._around.logs.end(key)
            self._on_change(key.app, key.environment)

    def views(self, app: AppName, environment: EnvironmentName) -> tuple[InstanceView, ...]:
        views = [one.view for key, one in self._instances.items() if key.app == app and key.environment == environment]
        return tuple(sorted(views, key=_BY_PLACE))

    def tail(
        self,
        app: AppName,
        environment: EnvironmentName,
        process: str | None = None,
        slot: int | None = None,
        lines: int = 100,
    ) -> list[bytes]:
        """The last records of the matching instances, in the order in which they came."""
        return self._around.logs.tail(matching(app, environment, process, slot), lines)

    def follow(
        self, app: AppName, environment: EnvironmentName, process: str | None = None, slot: int | None = None
    ) -> AbstractContextManager[Follower]:
        """Read along from now on; `Follower.take` waits for the next records."""
        return self._around.logs.follow(matching(app, environment, process, slot))

    async def refusal(self, processes: Iterable[ProcessType | ReleaseCommand]) -> str:
        """Why instances of these cannot be started on this host, or nothing; waits as long as a boot may need."""
        if not await wait_for_room(self._around):
            return NO_ROOM
        try:
            return await to_thread.run_sync(refusal, self._around.cgroup_root, processes)
        except OSError as error:
            return f"this host cannot tell whether it can start them: {error}"

    async def figures(
        self, app: AppName | None = None, environment: EnvironmentName | None = None
    ) -> tuple[InstanceFigures, ...]:
        """What the instances that run use of the host; none where there is no descriptor left to look with."""
        running = {
            key: measured
            for key, one in self._instances.items()
            if app in (None, key.app) and environment in (None, key.environment)
            if (measured := one.measured) is not None
        }
        try:
            found = await self._gauge.read(running)
        except OSError:
            return ()
        return tuple(
            InstanceFigures(
                app=key.app, environment=key.environment, process=key.process, slot=key.slot, figures=figures
            )
            for key, figures in found.items()
        )

    async def run_once(self, command: AdminCommand) -> AdminExit:
        """Run an admin process to its end; cancelling ends it."""
        number = next(self._numbers)
        ended = await oneoff.run_once(self._around, command, number)
        if ended.unkept:
            key = InstanceKey(command.app, command.environment, command.process, number)
            self._on_event(key, UNKEPT, {"limits": " ".join(ended.unkept)}, "warning")
        return ended

    def watching(self, command: WatchedCommand) -> AbstractAsyncContextManager[Attended | ExecFailure]:
        """Run a command that somebody watches; it ends with the block."""
        return watching(self._around, command, next(self._numbers))

    async def _find_left(self) -> None:
        await self._end_probes()
        for record in await to_thread.run_sync(lambda: list(self._around.records.left(clock.boot_id()))):
            if isinstance(record, Unreadable):
                await self._set_aside(record)
            elif record.instance is not None:
                self._left[record.key] = record
                names = await to_thread.run_sync(missing, self._around, record)
                if names and self._around.store.keeps:
                    lost = {"names": " ".join(sorted(names))}
                    self._on_event(record.key, "descriptors did not come back", lost, "warning")
            elif await self._ended(record.tree, record.key):
                await to_thread.run_sync(self._around.records.remove, record.key)
        for key in await to_thread.run_sync(self._around.marked):
            if key not in self._left:
                self._on_event(key, "it runs without a record: it is ended", {}, "warning")
                await self._ended(self._around.tree(key), key)

    async def _end_probes(self) -> None:
        """Whom an earlier agent asked by a command hears no answer any more."""
        for tree in await to_thread.run_sync(self._around.left_beside):
            await end_tree(tree)

    async def _set_aside(self, unreadable: Unreadable) -> None:
        """Nobody can tell what it is to be: end what bears its mark. The host starts anew what is wanted."""
        if unreadable.key is None:
            return
        why = {"reason": unreadable.reason}
        self._on_event(unreadable.key, "its record cannot be trusted: it is ended", why, "warning")
        await self._ended(self._around.tree(unreadable.key), unreadable.key)

    async def _ended(self, tree: Tree, key: InstanceKey) -> bool:
        """End a tree; False where something survives SIGKILL: it is met again by the next agent."""
        if await end_tree(tree):
            return False
        if tree.cgroup is not None:
            await to_thread.run_sync(cgroup.remove, tree.cgroup)
        await to_thread.run_sync(self._around.folder(key).remove)
        return True
