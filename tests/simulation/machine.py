"""A simulated host: the agent's pure cores over a disk that survives, processes that may, and a boot that may not."""

import random
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from agent.decisions.swap import plan
from agent.decisions.swap.state import (
    AdminEnded,
    Assigned,
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
from agent.errors import RefusedError
from agent.model.assignment import AdminReport, Assignment, HostReport
from agent.model.ids import HostName, ProcessName, ReleaseName
from agent.model.process import AppSpec
from agent.model.release import Order
from agent.model.units import Instant
from agent.wire.messages import PROTOCOL, Report, Welcome
from agent.wire.session import AgentSide
from tests.simulation.clock import Timeline

Slot = tuple[ProcessName, int]


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How a release behaves on a host: whether it becomes ready, and whether it can be fetched or migrated."""

    ready: bool = True
    crashes: bool = False
    fetchable: bool = True
    migrates: bool = True


class Machine:
    """One host. What it does is recorded in `history` for the checkers: (what, detail)."""

    def __init__(
        self,
        name: HostName,
        timeline: Timeline,
        rng: random.Random,
        spec: AppSpec,
        behaviour: Callable[[HostName, ReleaseName], Behaviour],
        read_order: Callable[[str], Order],
    ) -> None:
        self.name, self.timeline, self.rng, self.spec = name, timeline, rng, spec
        self.behaviour, self.read_order = behaviour, read_order
        self.disk = msgspec.json.encode(SwapState())
        self.processes: dict[Slot, InstanceView] = {}
        self.routes: dict[ProcessName, tuple[int, ...]] = {}
        self.boot, self.life = 0, 0
        self.session = AgentSide()
        self.state = SwapState()
        self.send: Callable[[Report], None] | None = None
        self.sequence = 0
        self.skew_ms = 0
        self.launched: list[tuple[int, ReleaseName]] = []
        self.migrated: list[str] = []
        self.told: dict[str, int] = {}
        """When it was first told that a rollout is over and stable is to run again."""
        self.faults: list[str] = []

    # The agent

    def now(self) -> Instant:
        return Instant(f"{self.name}-{self.boot}", self.timeline.now_ms, self.timeline.now_ms + self.skew_ms)

    def step(self, event: SwapEvent) -> None:
        if isinstance(event, Observed):
            event = Observed(instances=tuple(self.processes.values()))
        decision = plan.step(self.state, event, self.now())
        self.state = decision.state
        self.disk = msgspec.json.encode(durable(decision.state))
        for action in decision.actions:
            self.perform(action)
        self.report()

    def perform(self, action: SwapAction) -> None:
        match action:
            case Prepare(release=release):
                failure = "" if self.behaviour(self.name, release.name).fetchable else "its digest is wrong"
                spec = None if failure else self.spec
                self.mine(
                    self.rng.randint(10, 300), lambda: self.step(Prepared(release=release, spec=spec, failure=failure))
                )
            case RunAdmin(rollout=rollout, release=release):
                self.migrated.append(rollout)
                good = self.behaviour(self.name, release.name).migrates
                ended = AdminReport(
                    rollout=rollout, state="succeeded" if good else "failed", exit_code=0 if good else 1
                )
                self.mine(self.rng.randint(50, 400), lambda: self.step(AdminEnded(report=ended)))
            case Launch(process=process, slot=slot, release=release):
                self.launch((process, slot), release.name)
            case Stop(process=process, slot=slot):
                self.drain((process, slot))
            case Forget(process=process, slot=slot):
                self.processes.pop((process, slot), None)
            case Route(process=process, admitted=admitted):
                self.routes[process] = admitted
            case Wake(at=at):
                self.mine(at.boottime_ms - self.timeline.now_ms, lambda: self.step(Tick()))

    def report(self) -> None:
        if self.send is not None and self.state.assignment is not None:
            self.sequence += 1
            app = plan.report(self.state)
            self.send(
                Report(report=HostReport(host=self.name, boot_id=str(self.boot), sequence=self.sequence, apps=(app,)))
            )

    def welcomed(self, epoch: int) -> bool:
        try:
            self.session = self.session.welcomed(Welcome(protocol=PROTOCOL, epoch=epoch))
        except RefusedError:
            return False
        self.report()
        return True

    def assigned(self, assignment: Assignment) -> None:
        session = self.session.assigned(assignment)
        if session is None:
            return
        self.session = session
        order = self.read_order(assignment.order) if assignment.release else None
        if (
            order is not None
            and order.kind == "swap"
            and assignment.release.name == order.replaces
            and not assignment.prepare[1:]
        ):
            self.told[f"r{order.sequence}"] = self.timeline.now_ms
        self.step(Assigned(assignment=assignment, order=order))

    # What happens to it

    def kill_agent(self, *, adopts: bool) -> None:
        """`kill -9` of the agent and its restart; its processes live on, or end when it does not adopt them."""
        self.life += 1
        self.faults.append("agent")
        if not adopts:
            self.end_processes()
        self.restart()

    def lose_power(self) -> None:
        self.life += 1
        self.boot += 1
        self.faults.append("power")
        self.end_processes()
        self.restart()

    def crash_process(self) -> None:
        living = [slot for slot, view in self.processes.items() if view.state == "ready"]
        if living:
            slot = self.rng.choice(living)
            self.faults.append("process")
            self.change(slot, state="starting", restarts=self.processes[slot].restarts + 1, launched=self.now())
            self.boot_process(slot)

    def end_processes(self) -> None:
        self.processes.clear()
        self.routes.clear()

    def restart(self) -> None:
        self.session = AgentSide()
        self.state = msgspec.json.decode(self.disk, type=SwapState)
        interrupted = self.state.admin
        self.step(Restarted())
        self.step(Observed(instances=()))
        if interrupted is not None and interrupted.state == "running":
            self.step(AdminEnded(report=replace(interrupted, state="failed", output="the agent died meanwhile")))

    # Its processes

    def launch(self, slot: Slot, release: ReleaseName) -> None:
        if slot in self.processes:
            return
        self.launched.append((self.timeline.now_ms, release))
        self.processes[slot] = InstanceView(
            process=slot[0], slot=slot[1], release=release, state="starting", since=self.now(), launched=self.now()
        )
        self.boot_process(slot)

    def boot_process(self, slot: Slot) -> None:
        release = self.processes[slot].release
        behaviour = self.behaviour(self.name, release)

        def booted() -> None:
            view = self.processes.get(slot)
            if view is None or view.release != release or view.state != "starting":
                return
            if behaviour.crashes:
                looping = view.restarts >= 3
                self.change(
                    slot, state="backoff", restarts=view.restarts + 1, crash_looping=looping, detail="exit code 1"
                )
                self.soon(100, 1000, lambda: self.retry(slot))
            elif behaviour.ready:
                self.change(slot, state="ready")

        self.soon(50, 800, booted)

    def retry(self, slot: Slot) -> None:
        view = self.processes.get(slot)
        if view is not None and view.state == "backoff":
            self.change(slot, state="starting", launched=self.now())
            self.boot_process(slot)

    def drain(self, slot: Slot) -> None:
        view = self.processes.get(slot)
        if view is None or view.state in ("draining", "stopped"):
            return
        self.change(slot, state="draining", told=False)

        def gone() -> None:
            view = self.processes.get(slot)
            if view is not None and view.state == "draining":
                self.change(slot, state="stopped")

        self.soon(100, 1500, gone)

    def change(self, slot: Slot, *, told: bool = True, **fields: object) -> None:
        self.processes[slot] = replace(self.processes[slot], since=self.now(), **fields)
        if told:
            self.mine(self.rng.randint(0, 20), lambda: self.step(Observed(instances=())))

    def soon(self, least_ms: int, most_ms: int, happen: Callable[[], None]) -> None:
        """For what a process does: it happens unless the power fails first."""
        boot = self.boot
        self.timeline.after(self.rng.randint(least_ms, most_ms), lambda: happen() if boot == self.boot else None)

    def mine(self, delay_ms: int, happen: Callable[[], None]) -> None:
        """For what the agent does: it happens unless the agent dies first."""
        life = self.life
        self.timeline.after(delay_ms, lambda: happen() if life == self.life else None)
