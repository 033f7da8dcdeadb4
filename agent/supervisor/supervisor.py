"""All instances of one host: started when the host says so, watched, drained, shown.

Rules: everything that is started lives in the one task group of `run`; what an earlier agent left is ended before
anything is launched. A cancelled supervisor leaves living instances alone, as a killed one would: whoever goes away for
good drains first. Not handled here: which release, and traffic.
"""

import itertools
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus

from agent.decisions.swap.state import InstanceView
from agent.errors import invariant
from agent.linux import cgroup, clock
from agent.linux.killtree import end_tree
from agent.linux.spawn import Rlimits
from agent.model.ids import AppName, EnvironmentName
from agent.model.units import Milliseconds
from agent.supervisor import oneoff
from agent.supervisor.instance import Instance
from agent.supervisor.launchable import AdminCommand, AdminExit, InstanceKey, Launchable
from agent.supervisor.logs import Follower, Logs, matching
from agent.supervisor.process import Surroundings
from agent.supervisor.records import Records

RING_BYTES: Final = 256 * 1024

OnChange = Callable[[AppName, EnvironmentName], None]
OnEvent = Callable[[InstanceKey, str, Mapping[str, str | int]], None]


class Supervisor:
    """`on_change` and `on_event` are called from the loop, between two steps of an instance: they must not block."""

    def __init__(
        self,
        *,
        state_dir: Path,
        run_dir: Path,
        sink: Callable[[bytes], Awaitable[None]],
        on_change: OnChange,
        on_event: OnEvent,
        ring_bytes: int = RING_BYTES,
        cgroup_root: Path | None = None,
        rlimits: Rlimits | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._around: Final = Surroundings(
            run_dir=run_dir,
            records=Records(state_dir / "instances"),
            logs=Logs(sink, ring_bytes),
            jitter=jitter,
            cgroup_root=cgroup_root,
            rlimits=rlimits or {},
        )
        self._on_change = on_change
        self._on_event = on_event
        self._instances: dict[InstanceKey, Instance] = {}
        self._tasks: TaskGroup | None = None
        self._numbers = itertools.count(1)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """The owner of all that is started; ready once nothing of an earlier agent is left."""
        await self._end_leftovers()
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    def launch(self, launchable: Launchable) -> None:
        """Keep this instance running. Does nothing while one lives under the key; a stopped one is forgotten first."""
        key = launchable.key
        known = self._instances.get(key)
        if known is not None:
            invariant(known.view.state != "stopped", f"{key} has stopped and was not forgotten")
            return
        invariant(self._tasks is not None, "the supervisor does not run yet")
        instance = Instance(
            self._around,
            launchable,
            changed=lambda: self._on_change(key.app, key.environment),
            tell=lambda text, fields: self._on_event(key, text, fields),
        )
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
            self._around.logs.end(key)
            self._on_change(key.app, key.environment)

    def views(self, app: AppName, environment: EnvironmentName) -> tuple[InstanceView, ...]:
        views = [one.view for key, one in self._instances.items() if (key.app, key.environment) == (app, environment)]
        return tuple(sorted(views, key=lambda view: (view.process, view.slot)))

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

    async def run_once(self, command: AdminCommand) -> AdminExit:
        """Run an admin process to its end; cancelling ends it."""
        return await oneoff.run_once(self._around, command, next(self._numbers))

    async def _end_leftovers(self) -> None:
        left = await to_thread.run_sync(lambda: list(self._around.records.left(clock.boot_id())))
        for path, tree in left:
            if tree is not None and await end_tree(tree):
                continue  # what survives SIGKILL is named again next time
            if tree is not None and tree.cgroup is not None:
                await to_thread.run_sync(cgroup.remove, tree.cgroup)
            await to_thread.run_sync(path.unlink)
