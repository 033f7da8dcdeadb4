"""The shell of `decisions.swap`: one actor per app and environment takes an event, decides, stores, acts.

Rules: one event at a time; the new state is stored before any of its actions is performed; while the disk is full, what
a restart could not find out again is not taken up, and the rest goes on; actions are performed in their order. Fetching
and the release command are child tasks that answer by an event. What cannot be launched is told as an instance that
cannot start, and forgotten after a while, so that the decision meets it again. Only the actor knows both sockets and
processes.
"""

import contextlib
import math
import random
from typing import Final

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup
from msgspec.structs import replace

from agent.decisions.swap import plan, scale
from agent.decisions.swap.hand import aim
from agent.decisions.swap.state import (
    AdminEnded,
    ByHand,
    Forget,
    InstanceView,
    Launch,
    Observed,
    Prepare,
    Prepared,
    Restarted,
    Route,
    RunAdmin,
    Stop,
    SwapAction,
    SwapEvent,
    SwapState,
    Tick,
    Wake,
    durable,
)
from agent.errors import (
    FailedError,
    InvariantBrokenError,
    RefusedError,
    RollwayError,
    UnreachableError,
    VerificationError,
)
from agent.host.assignments import AppKey
from agent.host.inbox import Answer, Inbox, place
from agent.host.launch import addresses, admin_command
from agent.host.launching import Launching
from agent.host.routes import Routes
from agent.host.services import Services
from agent.host.takeup import take_up
from agent.linux import clock
from agent.model.assignment import AdminReport, Assignment, ReleaseRef
from agent.model.ids import ProcessName, RolloutId
from agent.model.process import AppSpec
from agent.model.units import Instant
from agent.supervisor.launchable import InstanceKey

RETRY_MS: Final = 5_000
"""How long a refused launch is told as `exec_failed` before it may be decided upon again."""
REST_FACTOR: Final = 9
REST_S: Final = (0.01, 0.05)
"""Between two looks at the instances: so that these take a tenth of the time at most, and no change waits long."""
STORE_RETRY_S: Final = 1.0
FETCH_AGAIN_S: Final = 0.5
FETCH_AGAIN_S_MAX: Final = 15.0
_CHANGED: Final = Observed(instances=())
"""Stands for a look that is to be taken."""
AGENT_DIED: Final = "the agent died while it ran; unknown whether it finished"

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Actor:
    """One app in one environment. `run` is its owner's task; what it starts beside goes into `tasks`."""

    def __init__(self, key: AppKey, state: SwapState, services: Services, tasks: TaskGroup) -> None:
        self.key = key
        self.state = state
        self.routes = Routes(key, tasks, services.store, services.own_ports)
        self.begun = anyio.Event()
        """Set once the first event was taken: from then on the state is about now, not about an earlier agent."""
        self._services = services
        self._tasks = tasks
        self._inbox = Inbox()
        self._wake_at: Instant | None = None
        self._refused: dict[tuple[ProcessName, int], InstanceView] = {}
        self._restarts: dict[tuple[ProcessName, int], int] = {}
        self._preparing: set[ReleaseRef] = set()
        self._admins: set[RolloutId] = set()
        self._asked: dict[object, Answer] = {}
        self._looked_s = 0.0
        self._log = log.bind(app=key.app, env=key.environment)
        if state.assignment is not None:
            self._take_up(state)

    def _take_up(self, stored: SwapState) -> None:
        self.put(Restarted())
        if stored.admin is not None and stored.admin.state == "running":
            self.put(AdminEnded(report=replace(stored.admin, state="failed", output=AGENT_DIED)))

    def put(self, event: SwapEvent) -> None:
        """Give an event; never waits."""
        self._inbox.put(event)

    async def ask(self, wish: ByHand) -> None:
        """Give what a person wants, and wait until it is decided and stored. Raises RefusedError, FailedError."""
        answer = self._asked.setdefault(place(wish), Answer())
        self.put(wish)
        await answer.given.wait()
        if answer.error is not None:
            raise answer.error

    def look(self) -> None:
        """Say that an instance has changed."""
        self._inbox.put(_CHANGED)

    def undrained(self) -> tuple[str, ...]:
        """What a drain waits for, by name: instances, release commands, and its own beginning."""
        begins = () if self.state.draining else (str(self.key),)
        views = (f"{self.key}.{view.process}.{view.slot}" for view in self._views())
        commands = (f"{self.key} release command" for _ in self._admins)
        return (*begins, *views, *commands)

    def unready(self) -> str:
        """Why a balancer is to send nothing here; empty when every listening type has an instance that is ready.

        During a swap a type that the new release brings along counts from its first ready instance on.
        """
        if self.state.draining:
            return "draining"
        admitted = self.routes.admitted()
        wanted = {name for name in admitted if self.routes.has_served(name)}
        if self.state.spec is not None and self.state.phase in ("settling", "done"):
            wanted |= {process.name for process in self.state.spec.processes if process.listen}
        elif not wanted:
            return "nothing is ready yet"
        if wanted and not (wanted := {name for name in wanted if scale.count(self.state, name)}):
            return "every process type that listens is scaled to 0"
        none_ready = sorted(name for name in wanted if not admitted.get(name))
        return f"no instance of {', '.join(none_ready)} is ready" if none_ready else ""

    async def run(self) -> None:
        if await take_up(self.key, self._services, self.routes, lambda: self.state):
            self.look()
        while True:
            event = await self._next()
            try:
                await self._take(event)
            except InvariantBrokenError:
                self._log.exception("a swap met a state that cannot be", kind=type(event).__name__)
                self._answered(event, FailedError("cannot be done: an internal error", "See the agent's log."))
            self.begun.set()

    async def _next(self) -> SwapEvent:
        """The next event; a moment that was asked for is one. Views are taken now, not when something changed."""
        event: SwapEvent | None = None
        with anyio.move_on_after(self._patience_s()):
            event = await self._inbox.take()
        if isinstance(event, Observed):  # more change meanwhile, and to look at hundreds takes time that they need
            await anyio.sleep(min(max(REST_S[0], REST_FACTOR * self._looked_s), REST_S[1]))
        if isinstance(event, Observed) or (event is None and self._drop_refused()):
            return Observed(instances=self._views())
        return event or Tick()

    def _patience_s(self) -> float:
        now = clock.now()
        moments = [view.since.after(RETRY_MS) for view in self._refused.values()]
        if self._wake_at is not None:
            moments.append(self._wake_at)
        return max(0, min((at.boottime_ms - now.boottime_ms for at in moments), default=math.inf)) / 1000

    def _drop_refused(self) -> bool:
        now = clock.now().boottime_ms
        over = [where for where, view in self._refused.items() if view.since.boottime_ms + RETRY_MS <= now]
        for where in over:
            del self._refused[where]
        return bool(over)

    async def _take(self, event: SwapEvent) -> None:
        began_s = anyio.current_time()
        if isinstance(event, Observed):
            self._mend(event)
        decision = plan.step(self.state, event, clock.now())
        if decision.refused:
            if not self._answered(event, RefusedError(decision.refused, "See `rollway ps` on this host.")):
                self._log.warning("assignment refused", reason=decision.refused)
            return
        if not await self._store(decision.state):
            if not self._answered(event, FailedError("the state cannot be stored", "Free space (`df -h`, `df -i`).")):
                self._tasks.start_soon(self._put_again, event)
            return
        self._adopt(decision.state)
        self._wake_at = None
        launching = Launching(self.key, self._services, self.routes)
        if launches := [action for action in decision.actions if isinstance(action, Launch)]:
            await launching.open_places(launches, self._assignment)
        for action in decision.actions:
            await self._perform(action, launching)
        await self._tidy()
        self._answered(event, None)
        self._looked_s = anyio.current_time() - began_s

    def _answered(self, event: SwapEvent, error: RollwayError | None) -> bool:
        """Tell whoever asked by hand; whether somebody did."""
        answer = self._asked.pop(place(event), None)
        if answer is not None:
            answer.error = error
            answer.given.set()
        return answer is not None

    async def _store(self, state: SwapState) -> bool:
        """Make `state` the stored one; whether it may be acted upon, as what a restart finds out anew always may."""
        if (stored := durable(state)) == durable(self.state):  # the rest is on records and in leases' files
            return True
        try:
            await to_thread.run_sync(self._services.states.store, self.key, stored)
        except OSError as error:
            self._log.error("the state cannot be stored", reason=str(error))
            return _to_remember(state) == _to_remember(self.state)
        return True

    async def _put_again(self, event: SwapEvent) -> None:
        await anyio.sleep(STORE_RETRY_S)
        self.put(event)

    def _adopt(self, state: SwapState) -> None:
        before, self.state = self.state, state
        if state.phase != before.phase:
            tell = self._log.error if state.phase == "failed" else self._log.info
            tell("swap", state=state.phase, reason=state.reason)
        if state != before:
            self._services.on_state()

    async def _perform(self, action: SwapAction, launching: Launching) -> None:
        match action:
            case Prepare(release=release):
                if release not in self._preparing:
                    self._preparing.add(release)
                    self._tasks.start_soon(self._prepare, release)
            case RunAdmin():
                if action.rollout not in self._admins:
                    self._admins.add(RolloutId(action.rollout))
                    self._tasks.start_soon(self._run_admin, action, self._assignment)
            case Launch():
                await self._launch(action, launching)
            case Route():
                self.routes.route(action)
            case Stop(process=process, slot=slot, linger_ms=linger_ms):
                if self._refused.pop((process, slot), None) is not None:
                    self.routes.forget(process, slot)
                    self.look()
                self._services.supervisor.stop(self._instance(process, slot), linger_ms)
            case Forget(process=process, slot=slot):
                self._services.supervisor.forget(self._instance(process, slot))
                self.routes.forget(process, slot)
            case Wake(at=at):
                self._wake_at = at

    # The single actions

    async def _prepare(self, ref: ReleaseRef) -> None:
        answer = await self._prepared(ref)
        self._preparing.discard(ref)
        if answer is not None:
            self.put(answer)

    async def _prepared(self, ref: ReleaseRef) -> Prepared | None:
        """Bring the release here, however long nobody answers; None when it is not wanted any more."""
        pause_s = FETCH_AGAIN_S
        while True:
            try:
                release = await self._services.releases.prepare(self.key, ref)
            except UnreachableError as error:
                self._log.warning("release cannot be fetched yet", release=ref.name, reason=str(error))
            except RollwayError as error:
                self._log.error("release cannot be prepared", release=ref.name, reason=str(error))
                return Prepared(release=ref, failure=str(error))
            else:
                lacking = await self._lacking(ref, release.spec)
                return Prepared(release=ref, failure=lacking) if lacking else Prepared(release=ref, spec=release.spec)
            await anyio.sleep(pause_s * random.uniform(1, 1.25))  # noqa: S311 - so that hosts do not ask all at once
            if ref not in plan.releases(aim(self.state)):
                return None
            pause_s = min(pause_s * 2, FETCH_AGAIN_S_MAX)

    async def _lacking(self, ref: ReleaseRef, spec: AppSpec) -> str:
        """What a release for later cannot have here, told before anything moves; what is to run is tried for ever."""
        assignment = aim(self.state)
        if assignment is None or assignment.release == ref:
            return ""
        return await self._services.supervisor.refusal((*spec.processes, *filter(None, (spec.release,))))

    async def _run_admin(self, action: RunAdmin, assignment: Assignment) -> None:
        rollout = RolloutId(action.rollout)
        self._log.info("release command begins", release=action.release.name, rollout=rollout)
        try:
            runnable = await self._services.releases.runnable(self.key, action.release)
            config = self._services.key.open_config(runnable.release.config, assignment.environment_key)
            ended = await self._services.supervisor.run_once(admin_command(assignment, runnable, config))
            report = AdminReport(
                rollout=rollout,
                state="succeeded" if ended.succeeded else "failed",
                exit_code=ended.exit_code,
                output=ended.told,
            )
        except RollwayError as error:
            report = AdminReport(rollout=rollout, state="failed", output=str(error))
        self._log.info("release command ended", rollout=rollout, state=report.state, exit_code=report.exit_code)
        self._admins.discard(rollout)
        self.put(AdminEnded(report=report))

    async def _launch(self, launch: Launch, launching: Launching) -> None:
        where = (launch.process, launch.slot)
        try:
            launchable = await launching.launchable(launch, self._assignment)
        except RollwayError as error:
            now = clock.now()
            self._refused[where] = InstanceView(
                process=launch.process,
                slot=launch.slot,
                release=launch.release.name,
                state="exec_failed",
                since=now,
                launched=now,
                detail=str(error),
            )
            name = self._instance(*where).name
            self._log.error("instance cannot be launched", instance=name, reason=str(error))
            self.look()
            return
        self._refused.pop(where, None)
        self._services.supervisor.launch(launchable)

    # What the actor sees

    @property
    def _assignment(self) -> Assignment:
        assignment = aim(self.state)
        if assignment is None:
            raise InvariantBrokenError("an action without an assignment")
        return assignment

    def _instance(self, process: ProcessName, slot: int) -> InstanceKey:
        return InstanceKey(self.key.app, self.key.environment, process, slot)

    def _views(self) -> tuple[InstanceView, ...]:
        seen = self._services.supervisor.views(self.key.app, self.key.environment)
        return (*seen, *self._refused.values())

    def _mend(self, observed: Observed) -> None:
        """An instance that has just ended, restarted or not, may have shut its listening sockets down."""
        before = self._restarts
        self._restarts = {(view.process, view.slot): view.restarts for view in observed.instances if view.restarts}
        ended = {
            view.process
            for view in observed.instances
            if view.state == "stopped" or view.restarts > before.get((view.process, view.slot), 0)
        }
        for process in ended:
            for slot in self.routes.mend(process):
                self._log.warning("listening socket was shut down by its instance", instance=f"{process}.{slot}")

    async def _tidy(self) -> None:
        """Close the groups that nothing needs any more: addresses of a release that is gone, all when nothing runs."""
        assignment, spec = aim(self.state), self.state.spec
        if assignment is None:
            return
        if assignment.release is None or self.state.draining:
            await self.routes.keep_only(())
        elif spec is not None:
            with contextlib.suppress(VerificationError):  # told by the launch
                await self.routes.keep_only(
                    (process.name, address)
                    for process in spec.processes
                    for address in addresses(process, assignment, self._services.address)
                )


def _to_remember(state: SwapState) -> tuple[object, ...]:
    """What only the disk can tell after a restart: it is never acted upon before it lies there."""
    by_hand = (state.pin, state.halts, state.renewal)
    return state.assignment, state.order, state.sequence, state.admin, state.shares, *by_hand
