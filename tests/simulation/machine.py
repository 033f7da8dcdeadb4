"""A simulated host: the agent's pure cores over a disk that survives, processes that may, and a boot that may not."""

import random
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from agent.decisions.swap import plan
from agent.decisions.swap.report import report
from agent.decisions.swap.state import (
    AdminEnded,
    Assigned,
    Forget,
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
from agent.errors import RefusedError
from agent.model.assignment import AdminReport, Assignment, HostReport, ReleaseRef
from agent.model.ids import HostName, ProcessName, ReleaseName, RolloutId
from agent.model.process import AppSpec
from agent.model.release import Order
from agent.model.units import Instant
from agent.wire.messages import PROTOCOL, Assign, Report, Welcome, decode_from_coordinator
from agent.wire.session import AgentSide
from tests.simulation.clock import Timeline
from tests.simulation.fuse import Fuse
from tests.simulation.process import Behaviour, Process

Slot = tuple[ProcessName, int]


class Machine:
    """One host. The public fields are what checkers look at: what runs, where traffic goes, what was ever begun."""

    def __init__(
        self,
        name: HostName,
        timeline: Timeline,
        rng: random.Random,
        *,
        spec_of: Callable[[ReleaseName], AppSpec],
        behaviour: Callable[[HostName, ReleaseName], Behaviour],
        read_order: Callable[[str], Order],
    ) -> None:
        self.name, self.timeline, self.rng = name, timeline, rng
        self.spec_of, self.behaviour, self.read_order = spec_of, behaviour, read_order
        self.state = SwapState()
        self.processes: dict[Slot, Process] = {}
        self.routes: dict[ProcessName, tuple[int, ...]] = {}
        self.fetched: set[ReleaseName] = set()
        self.launched: list[tuple[int, ReleaseName]] = []
        self.migrated: list[RolloutId] = []
        self.faults = 0
        """How often something here failed by itself: then it is no decision that fewer are ready."""
        self.fuse = Fuse()
        self.die: Callable[[], None] = lambda: self.kill_agent(adopts=False)
        self.send: Callable[[Report], None] | None = None
        self.skew_ms = 0
        self.life = 0
        self._disk = msgspec.json.encode(SwapState())
        self._boot = 0
        self._session = AgentSide()
        self._sequence = 0
        self._wakes = 0

    # The agent

    def now(self) -> Instant:
        return Instant(f"{self.name}-{self._boot}", self.timeline.now_ms, self.timeline.now_ms + self.skew_ms)

    def welcomed(self, epoch: int) -> bool:
        """Whether this host listens to a coordinator of that epoch; then a connection has begun."""
        try:
            self._session = self._session.welcomed(Welcome(protocol=PROTOCOL, epoch=epoch))
        except RefusedError:
            return False
        self._report()
        return True

    def receive(self, data: bytes) -> None:
        """A frame of any connection, however old: what it says decides whether it counts."""
        frame = decode_from_coordinator(data)
        if isinstance(frame, Assign):
            session = self._session.assigned(frame.assignment)
            if session is not None:
                self._session = session
                self.assigned(frame.assignment)

    def assigned(self, assignment: Assignment) -> None:
        order = self.read_order(assignment.order) if assignment.release or assignment.admin else None
        self.step(Assigned(assignment=assignment, order=order))

    def step(self, event: SwapEvent) -> None:
        """As the agent's shell does it: decide, store, act in order, report."""
        if isinstance(event, Observed):
            event = Observed(instances=tuple(process.view for process in self.processes.values()))
        decision = plan.step(self.state, event, self.now())
        if decision.refused:
            return
        if durable(decision.state) != durable(self.state):
            if self.fuse.burns_out():
                self.die()
                return
            self._disk = msgspec.json.encode(durable(decision.state))
        self.state = decision.state
        self._wakes += 1
        for action in decision.actions:
            if self.fuse.burns_out():
                self.die()
                return
            self._perform(action)
        self._report()

    def _perform(self, action: SwapAction) -> None:
        match action:
            case Prepare(release=release):
                self._mine(self.rng.randint(10, 300), lambda: self._prepared(release))
            case RunAdmin(rollout=rollout, release=release):
                self.migrated.append(RolloutId(rollout))
                good = self.behaviour(self.name, release.name).migrates
                ended = AdminReport(
                    rollout=RolloutId(rollout), state="succeeded" if good else "failed", exit_code=0 if good else 1
                )
                self._mine(self.rng.randint(100, 2_500), lambda: self.step(AdminEnded(report=ended)))
            case Launch(process=process, slot=slot, release=release):
                self._launch((process, slot), release.name)
            case Stop(process=process, slot=slot, linger_ms=linger_ms):
                if (process, slot) in self.processes:
                    self.processes[process, slot].stop(linger_ms)
            case Forget(process=process, slot=slot):
                self.processes.pop((process, slot), None)
            case Route(process=process, admitted=admitted):
                self.routes[process] = admitted
            case Wake(at=at):
                wake = self._wakes
                self._mine(at.boottime_ms - self.timeline.now_ms, lambda: self._tick(wake))

    def _prepared(self, release: ReleaseRef) -> None:
        if self.behaviour(self.name, release.name).fetchable:
            self.fetched.add(release.name)
            self.step(Prepared(release=release, spec=self.spec_of(release.name)))
        else:
            self.step(Prepared(release=release, failure="its digest is wrong"))

    def _tick(self, wake: int) -> None:
        if wake == self._wakes:
            self.step(Tick())

    def _launch(self, slot: Slot, release: ReleaseName) -> None:
        kind = self.spec_of(release).process(slot[0])
        if slot in self.processes or kind is None:
            return
        self.launched.append((self.timeline.now_ms, release))
        self.processes[slot] = Process(
            kind,
            slot[1],
            release,
            self.behaviour(self.name, release),
            soon=self._soon,
            now=self.now,
            rng=self.rng,
            changed=self._look,
            faltered=self._faltered,
        )

    def _look(self) -> None:
        self._mine(self.rng.randint(0, 20), lambda: self.step(Observed(instances=())))

    def _faltered(self) -> None:
        self.faults += 1

    def _report(self) -> None:
        if self.send is not None and self.state.assignment is not None:
            self._sequence += 1
            app = report(self.state)
            self.send(
                Report(report=HostReport(host=self.name, boot_id=str(self._boot), sequence=self._sequence, apps=(app,)))
            )

    # What happens to it

    def kill_agent(self, *, adopts: bool) -> None:
        """`kill -9` of the agent and its restart; its processes live on, or end when it does not adopt them."""
        self.life += 1
        if not adopts:
            self._end_processes()
        self._restart()
        for process in list(self.processes.values()):
            process.adopt()

    def lose_power(self) -> None:
        self.life += 1
        self._boot += 1
        self._end_processes()
        self._restart()

    def _end_processes(self) -> None:
        self.faults += 1
        for process in self.processes.values():
            process.vanish()
        self.processes.clear()
        self.routes.clear()

    def _restart(self) -> None:
        self._session = AgentSide()
        self.state = msgspec.json.decode(self._disk, type=SwapState)
        interrupted = self.state.admin
        self.step(Restarted())
        self.step(Observed(instances=()))
        if interrupted is not None and interrupted.state == "running":
            self.step(AdminEnded(report=replace(interrupted, state="failed", output="the agent died meanwhile")))

    def _soon(self, delay_ms: int, happen: Callable[[], None]) -> None:
        """For what a process does: it happens unless the power fails first."""
        boot = self._boot
        self.timeline.after(delay_ms, lambda: happen() if boot == self._boot else None)

    def _mine(self, delay_ms: int, happen: Callable[[], None]) -> None:
        """For what the agent does: it happens unless the agent dies first."""
        life = self.life
        self.timeline.after(delay_ms, lambda: happen() if life == self.life else None)
