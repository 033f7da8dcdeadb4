"""The host: its actors, one per app and environment, brought back at start, fed by the link and by the supervisor.

Rules: an assignment reaches a path, a process or a socket only after its names were checked and its order was verified;
an environment that this host does not serve is refused. No coordinator is needed to start, to restart or to drain.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus
from msgspec.structs import replace

from agent.artifacts import sign
from agent.decisions.swap.hand import way_back
from agent.decisions.swap.report import report
from agent.decisions.swap.state import Assigned, Drain, PinAsked, SwapState, Undrain
from agent.errors import FailedError, NotFoundError, UsageError, VerificationError
from agent.host import drained
from agent.host.assignments import AppKey, States
from agent.host.converge import Actor
from agent.host.keys import HostKey
from agent.host.leases import Leases
from agent.host.ownports import OwnPorts
from agent.host.releases import Releases, ReleaseSource
from agent.host.runs import DRAINED, Runs
from agent.host.services import Services
from agent.host.tails import tail
from agent.linux.fdstore import FdStore, Inherited
from agent.model import ids
from agent.model.assignment import AppReport, Assignment, ReleaseRef
from agent.model.figures import InstanceFigures
from agent.model.ids import AppName, EnvironmentName, ProcessName
from agent.model.process import ProcessType, StopPolicy
from agent.model.roles import AgentSettings
from agent.model.units import Milliseconds
from agent.supervisor.supervisor import Supervisor
from agent.wire.control import Pin
from agent.wire.messages import TailLines, TailLogs

DRAIN_MARGIN_MS: Final = 10_000
STRANGERS_PERIOD_S: Final = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Host:
    """`run` is its owner's task; cancelling it leaves instances alone, so `drain` first.

    `on_report` is called where `reports` has news, which with hundreds of instances may be often.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        supervisor: Supervisor,
        store: FdStore | None = None,
        inherited: Inherited | None = None,
        source: ReleaseSource,
        key: HostKey,
        on_report: Callable[[], None],
    ) -> None:
        state_dir = Path(settings.state_dir).resolve()
        self.name = settings.name
        self._environments = settings.environments
        self._run_dir = Path(settings.run_dir).resolve()
        self._on_report = on_report
        self._actors: dict[AppKey, Actor] = {}
        self._changed: anyio.Event | None = None
        self._tasks: TaskGroup
        self._services = Services(
            supervisor=supervisor,
            store=store or FdStore(None),
            inherited=inherited or Inherited({}),
            releases=Releases(state_dir, source),
            states=States(state_dir / "apps"),
            key=key,
            own_ports=OwnPorts(),
            address=settings.address,
            on_state=self._on_state,
        )
        self.leases = Leases(supervisor, self._actors)
        self.runs = Runs(self.name, self._actors, self._services, self._tell)
        self.loaded = False
        self.stops_for_good = False
        """Whether what the service manager keeps for a next agent will be lost."""
        self.drained = False
        """Whether the host was drained until further notice: nothing is started."""
        self.news = 0
        """How often something has changed."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Bring back what was assigned; started, and reported for the first time, once every actor looks at now."""
        try:
            async with anyio.create_task_group() as self._tasks:
                self.runs.tasks = self._tasks
                await self._bring_back()
                task_status.started()
                await self._watch_for_strangers()
        finally:
            for actor in self._actors.values():
                if self.stops_for_good:
                    actor.routes.leave_spares()
                actor.routes.close()

    async def _bring_back(self) -> None:
        await to_thread.run_sync(self._services.releases.sweep)
        stored = await to_thread.run_sync(self._services.states.load, _quarantined)
        self.drained = await to_thread.run_sync(drained.is_there, self._run_dir)
        self.runs.closed = DRAINED if self.drained else ""
        held = [self._begin(key, state) for key, state in stored.items() if state.assignment is not None]
        # What runs although nobody knows any more why goes on: the coordinator will say.
        left = {AppKey(*names) for names in self._services.supervisor.left_apps()}
        held += [self._begin(key, SwapState()) for key in left - self._actors.keys()]
        for actor in held:
            await actor.begun.wait()
        self.loaded = True
        self._on_state()

    async def assign(self, assignment: Assignment) -> None:
        """Take an assignment from the link; a refusal is an event, the report tells what is held instead."""
        try:
            assigned = self._verified(assignment)
        except VerificationError as error:
            log.warning("assignment refused", app=assignment.app, env=assignment.environment, reason=str(error))
            return
        key = AppKey(assignment.app, assignment.environment)
        actor = self._actors.get(key) or self._begin(key, SwapState())
        actor.put(assigned)

    def instance_changed(self, app: AppName, environment: EnvironmentName) -> None:
        """The supervisor's `on_change`."""
        actor = self._actors.get(AppKey(app, environment))
        if actor is not None:
            actor.look()
        self._tell()

    def reports(self) -> tuple[AppReport, ...]:
        """The whole truth about this host."""
        told = [report(actor.state) for actor in self._actors.values() if actor.state.assignment is not None]
        return tuple(replace(one, aside="drained") if self.drained else one for one in told)

    def pins(self) -> tuple[Pin, ...]:
        """The apps that a person keeps at a release, whatever is assigned."""
        return tuple(
            Pin(key.app, key.environment, actor.state.pin.release.name)
            for key, actor in self._actors.items()
            if actor.state.pin is not None
        )

    def find(self, app: str, environment: str | None) -> Actor:
        """The actor of an app; without an environment there must be one only. Raises NotFoundError, UsageError."""
        found = {key: actor for key, actor in self._actors.items() if key.app == app}
        if environment is not None:
            found = {key: actor for key, actor in found.items() if key.environment == environment}
        if not found:
            here = ", ".join(f"{key.app} {key.environment}" for key in self._actors) or "nothing"
            where = f" in {environment}" if environment else ""
            raise NotFoundError(f"nothing of {app}{where} runs on this host", f"There is {here}.")
        if len(found) > 1:
            names = ", ".join(key.environment for key in found)
            raise UsageError(f"{app} runs here in {len(found)} environments: {names}", "Say which.")
        return next(iter(found.values()))

    async def go_back(self, actor: Actor) -> ReleaseRef:
        """Pin the release that the order of `actor` leads back to. Raises RollwayError when there is none to go to."""
        if actor.state.pin is not None:
            return actor.state.pin.release
        target = way_back(actor.state)
        if target is None:
            raise FailedError(
                f"nothing to go back to: this host knows no release of {actor.key.app} before the one that it runs",
                "Stop what does harm: `rollway stop`; or wait for the coordinator.",
            )
        runnable = await self._services.releases.runnable(actor.key, target)
        await actor.ask(PinAsked(release=target, spec=runnable.release.spec))
        return target

    def tail(self, ask: TailLogs) -> AsyncGenerator[TailLines, None]:
        """The newest records of instances and, if asked, those to come."""
        return tail(self._services.supervisor, ask)

    async def figures(self, app: str | None, environment: str | None) -> tuple[InstanceFigures, ...]:
        """What instances use of this host, of one app or of all."""
        return await self._services.supervisor.figures(
            None if app is None else AppName(app), None if environment is None else EnvironmentName(environment)
        )

    def unready(self, app: str, environment: str | None = None) -> str | None:
        """Why a balancer is to send nothing for `app`; empty when it may; None: no such app here."""
        found = [
            actor for key, actor in self._actors.items() if key.app == app and environment in (None, key.environment)
        ]
        if not found:
            return None
        return next((reason for actor in found if (reason := actor.unready())), "")

    async def drain(self) -> bool:
        """Stop everything in order and wait for it, bounded by the stop policies; whether it all ended."""
        patience_s = self.patience_s
        self.runs.end(DRAINED)
        self._put_all(Drain())
        with anyio.move_on_after(patience_s):
            while self.undrained():
                await self.changed()
            await self.leases.leave()
            return True
        return False

    async def stay_drained(self) -> None:
        """Begin to stop everything, and start nothing again, by no agent of this boot, before `undrain`."""
        self.drained = True
        with anyio.CancelScope(shield=True):  # whoever asked may be gone by now: it is drained for good all the same
            try:
                await to_thread.run_sync(drained.put, self._run_dir)
            except OSError as error:
                log.error("an agent that is started anew will not know that the host is drained", reason=str(error))  # noqa: TRY400
        self.runs.end(DRAINED)
        self._put_all(Drain())

    def undrain(self) -> None:
        """Run again what is assigned. Raises OSError while the mark cannot be taken away. At once: whole or not."""
        drained.take_away(self._run_dir)
        self.drained, self.runs.closed = False, ""
        self._put_all(Undrain())

    @property
    def patience_s(self) -> float:
        """How long a drain may take by the stop policies of what runs."""
        return (_patience_ms(actor.state for actor in self._actors.values()) + DRAIN_MARGIN_MS) / 1000

    def undrained(self) -> tuple[str, ...]:
        """What a drain still waits for, by name."""
        commands = tuple(str(attended.key) for attended in self.runs.living())
        return (*(name for actor in self._actors.values() for name in actor.undrained()), *commands)

    async def changed(self) -> None:
        """Wait for the next change of anything on this host."""
        self._changed = self._changed or anyio.Event()
        await self._changed.wait()

    def _put_all(self, event: Drain | Undrain) -> None:
        for actor in self._actors.values():
            actor.put(event)

    def _begin(self, key: AppKey, state: SwapState) -> Actor:
        state = replace(state, draining=self.drained, leases=self.leases.of(key, state))
        actor = self._actors[key] = Actor(key, state, self._services, self._tasks)
        self._tasks.start_soon(actor.run)
        return actor

    def _verified(self, assignment: Assignment) -> Assigned:
        if not (ids.is_name(assignment.app) and ids.is_name(assignment.environment)):
            raise VerificationError(f"it names {assignment.app!r:.40} in {assignment.environment!r:.40}")
        if assignment.environment not in self._environments:
            raise VerificationError(f"this host does not serve the environment {assignment.environment}")
        runs_something = assignment.release is not None or assignment.admin is not None
        order = sign.verify_order(assignment.order.encode()) if runs_something else None
        return Assigned(assignment=assignment, order=order)

    def _on_state(self) -> None:
        if self.loaded:
            self.leases.look()
            self._on_report()
        self._tell()

    @property
    def is_launching(self) -> bool:
        """Whether something is on its way to its launch, as far as that can be seen."""
        return self._services.releases.looks or any(
            view.state == "starting" and view.pid is None
            for actor in self._actors.values()
            for view in actor.state.instances
        )

    def _tell(self) -> None:
        self.news += 1
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _watch_for_strangers(self) -> None:
        """Tell, once each, who else listens on an address of ours: the kernel gives such a listener our connections."""
        told: set[tuple[str, int]] = set()
        sees = True
        while True:
            await anyio.sleep(STRANGERS_PERIOD_S)
            try:
                found = {
                    (str(address), owner.pid): owner.command
                    for actor in list(self._actors.values())
                    for address, owner in await actor.routes.strangers()
                }
            except OSError as error:
                if sees:
                    log.warning("cannot see who listens on our addresses", reason=str(error))
                sees = False
                continue
            sees = True
            for address, pid in found.keys() - told:
                log.error("somebody else listens on our address", address=address, pid=pid, command=found[address, pid])
            told = set(found)


def _quarantined(path: Path, reason: str) -> None:
    log.error("stored state cannot be trusted and was set aside", file=str(path), reason=reason)


def _patience_ms(states: Iterable[SwapState]) -> Milliseconds:
    """The longest that a drain may take: of types that wait for each other, one after the other."""
    longest = StopPolicy().linger_ms + StopPolicy().grace_ms
    for state in states:
        over = state.assignment.linger_ms if state.assignment is not None else None
        each: dict[ProcessName, Milliseconds] = {}
        in_turn = False
        for process in (*(state.spec.processes if state.spec is not None else ()), *_running(state)):
            takes_ms = (process.stop.linger_ms if over is None else over) + process.stop.grace_ms
            each[process.name] = max(takes_ms, each.get(process.name, 0))
            in_turn = in_turn or bool(process.after)
        longest = max(longest, sum(each.values()) if in_turn else max(each.values(), default=0))
    return longest


def _running(state: SwapState) -> Iterator[ProcessType]:
    """As what they run, of whatever release."""
    return (view.type for view in state.instances if view.type is not None)
