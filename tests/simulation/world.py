"""Three hosts, a coordinator and the network between them, around the same pure functions as production runs.

Everything follows from one seed. `World.history` and the machines' records are what the checkers look at.
"""

import random
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from agent.decisions.rollout import begin
from agent.decisions.rollout import step as rollouts
from agent.decisions.rollout.state import Begin, Ended, Give, Reachable, Reported, RolloutEvent, Tick, Wake
from agent.model.assignment import Assignment, ReleaseRef
from agent.model.environment import EnvironmentSettings
from agent.model.ids import HostName, ReleaseName
from agent.model.process import AppSpec, ProcessType, ReleaseCommand
from agent.model.release import Order
from agent.model.rollout import HostStep, Rollout
from agent.wire import messages
from agent.wire.messages import Assign, Report
from agent.wire.session import CoordinatorSide
from tests.simulation.clock import Timeline
from tests.simulation.machine import Behaviour, Machine
from tests.simulation.network import Connection

APP, ENVIRONMENT = "shop", "local"
SPEC = AppSpec(
    app=APP,
    release=ReleaseCommand(command="bin/migrate"),
    processes=(
        ProcessType(name="web", command="bin/web", count=2, listen=("0.0.0.0:8080",)),
        ProcessType(name="worker", command="bin/worker", after=("web",)),
        ProcessType(name="clock", command="bin/clock", swap="stop-first"),
    ),
)


def ref(name: str) -> ReleaseRef:
    return ReleaseRef(name=name, digest=f"sha256:{name}")


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """What the coordinator's database holds: all that is left of it after `kill -9`."""

    epoch: int = 0
    rollout: Rollout | None = None
    assignments: dict[HostName, Assignment] = {}
    runs: ReleaseRef | None = None
    stable: tuple[ReleaseRef, ...] = ()
    sequence: int = 0
    orders: dict[str, Order] = {}
    ended: tuple[Rollout, ...] = ()


class World:
    """One seed's world. `apply_fault` and the operator's verbs are called by scenarios."""

    def __init__(self, seed: int, *, hosts: int = 3, settings: EnvironmentSettings | None = None) -> None:
        self.rng = random.Random(seed)
        self.timeline = Timeline()
        self.behaviours: dict[tuple[HostName, ReleaseName], Behaviour] = {}
        self.settings = settings or EnvironmentSettings()
        self.disk = msgspec.json.encode(Store())
        self.store = Store()
        self.up = False
        self.life = 0
        self.skew_ms = 0
        self.timer = 0
        self.connections: dict[HostName, tuple[Connection, CoordinatorSide]] = {}
        self.machines = {
            name: Machine(name, self.timeline, random.Random(self.rng.random()), SPEC, self.behaviour, self.read_order)
            for name in (f"h{number}" for number in range(1, hosts + 1))
        }
        self.cut: set[HostName] = set()
        self.history: list[tuple[int, str]] = []
        self.watchers: list[Callable[[World], None]] = []

    def behaviour(self, host: HostName, release: ReleaseName) -> Behaviour:
        return self.behaviours.get((host, release), Behaviour())

    def read_order(self, envelope: str) -> Order:
        return self.store.orders[envelope]

    def run_for(self, duration_ms: int) -> None:
        self.timeline.run_until(self.timeline.now_ms + duration_ms)

    # The coordinator

    def start_coordinator(self) -> None:
        if self.up:
            return
        self.store = msgspec.json.decode(self.disk, type=Store)
        self.up = True
        self.commit(replace(self.store, epoch=self.store.epoch + 1))
        if self.rollout is not None:
            for step in self.rollout.hosts:
                self.step(Reachable(host=step.host, reachable=False))
            self.step(Tick())
        for name in self.machines:
            self.dial(name)

    def kill_coordinator(self) -> None:
        """`kill -9`: what was not committed is gone, and with it every connection."""
        self.up = False
        self.life += 1
        for name in list(self.connections):
            self.hang_up(name)

    def commit(self, store: Store) -> None:
        self.store = store
        self.disk = msgspec.json.encode(store)

    @property
    def rollout(self) -> Rollout | None:
        rollout = self.store.rollout
        return None if rollout is None or rollout.terminal else rollout

    def step(self, event: RolloutEvent) -> str:
        rollout = self.rollout
        if rollout is None or not self.up:
            return "no rollout"
        decision = rollouts.step(rollout, event, self.timeline.now_ms + self.skew_ms)
        if decision.refused:
            return decision.refused
        store = replace(self.store, rollout=decision.state)
        changed: list[HostName] = []
        wake = None
        for action in decision.actions:
            match action:
                case Give():
                    store = self.give(store, action, decision.state)
                    changed.append(action.host)
                case Ended():
                    store = self.ended(store, action, decision.state)
                case Wake(after_ms=after_ms):
                    wake = after_ms
        if decision.changed:
            self.commit(store)
        else:
            self.store = store
        if wake is not None:
            self.wake(wake)
        for name in changed:
            self.transmit(name)
        for watcher in self.watchers:
            watcher(self)
        return ""

    def wake(self, after_ms: int) -> None:
        """One timer: the newest replaces the one before."""
        self.timer += 1
        timer = self.timer
        self.soon(after_ms, lambda: self.step(Tick()) and None if timer == self.timer else None)

    def give(self, store: Store, give: Give, rollout: Rollout) -> Store:
        assignment = Assignment(
            app=APP,
            environment=ENVIRONMENT,
            epoch=store.epoch,
            generation=give.generation,
            release=give.release,
            order=rollout.order,
            prepare=give.prepare,
            admin=give.admin,
            min_ready_ms=rollout.pace.min_ready_ms,
            deadline_ms=rollout.pace.deadline_ms,
        )
        return replace(store, assignments={**store.assignments, give.host: assignment})

    def ended(self, store: Store, ended: Ended, rollout: Rollout) -> Store:
        self.history.append((self.timeline.now_ms, f"{rollout.kind} {rollout.release.name} {ended.state}"))
        stable = store.stable
        if ended.state == "done" and rollout.kind == "swap":
            stable = (*stable, rollout.release)
        elif ended.state == "done":
            stable = stable[: stable.index(rollout.release) + 1]
        store = replace(store, runs=ended.runs, stable=stable, ended=(*store.ended, rollout))
        for step in rollout.hosts:  # hosts that were left behind get what the environment runs
            held = store.assignments.get(step.host)
            if held is None or held.release != ended.runs:
                generation = max((other.generation for other in store.assignments.values()), default=0) + 1
                give = Give(host=step.host, generation=generation, release=ended.runs)
                store = self.give(store, give, rollout)
                self.soon(1, lambda host=step.host: self.transmit(host))
        return store

    def order(self, kind: str, release: str) -> None:
        """An operator's `swap` or `rollback`, accepted by the coordinator as its API would."""
        target, runs = ref(release), self.store.runs
        order = Order(
            kind="rollback" if kind == "rollback" else "swap",
            app=APP,
            environment=ENVIRONMENT,
            release=target.name,
            release_digest=target.digest,
            replaces=runs.name if runs else None,
            replaces_digest=runs.digest if runs else None,
            sequence=self.store.sequence + 1,
        )
        envelope = f"order-{order.sequence}"
        rollout = begin.plan(
            rollout_id=f"r{order.sequence}",
            order=order,
            envelope=envelope,
            settings=self.settings,
            spec=SPEC,
            hosts=tuple(HostStep(host=name, reachable=name in self.connections) for name in self.machines),
            first_generation=max((held.generation for held in self.store.assignments.values()), default=0) + 1,
            asked_by="operator",
            now_ms=self.timeline.now_ms + self.skew_ms,
        )
        orders = {**self.store.orders, envelope: order}
        self.commit(replace(self.store, rollout=rollout, sequence=order.sequence, orders=orders))
        self.step(Begin())

    def soon(self, delay_ms: int, happen: Callable[[], None]) -> None:
        life = self.life
        self.timeline.after(delay_ms, lambda: happen() if life == self.life else None)

    # The link

    def dial(self, name: HostName) -> None:
        """An agent tries to connect, now and every so often, as long as it is not connected."""
        machine = self.machines[name]
        if name in self.connections:
            return
        if not self.up or name in self.cut:
            self.timeline.after(self.rng.randint(100, 1000), lambda: self.dial(name))
            return
        connection = Connection(self.timeline, self.rng, name)
        self.connections[name] = (connection, CoordinatorSide())
        machine.send = lambda report: connection.carry("up", report, lambda data: self.receive(connection, data))
        if not machine.welcomed(self.store.epoch):
            self.hang_up(name)
            return
        self.step(Reachable(host=name, reachable=True))
        self.transmit(name)

    def hang_up(self, name: HostName) -> None:
        held = self.connections.pop(name, None)
        if held is None:
            return
        held[0].open = False
        self.machines[name].send = None
        self.step(Reachable(host=name, reachable=False))
        self.timeline.after(self.rng.randint(100, 1000), lambda: self.dial(name))

    def transmit(self, name: HostName) -> None:
        held = self.connections.get(name)
        assignment = self.store.assignments.get(name)
        if held is None or assignment is None:
            return
        connection, side = held
        side, due = side.assign(replace(assignment, epoch=self.store.epoch)).send_next()
        self.connections[name] = (connection, side)
        if due is not None:
            machine = self.machines[name]
            connection.carry("down", Assign(assignment=due), lambda data: self.deliver(machine, data))

    def deliver(self, machine: Machine, data: bytes) -> None:
        frame = messages.decode_from_coordinator(data)
        if isinstance(frame, Assign):
            machine.assigned(frame.assignment)

    def receive(self, connection: Connection, data: bytes) -> None:
        frame = messages.decode_from_agent(data)
        held = self.connections.get(connection.host)
        if not isinstance(frame, Report) or held is None or held[0] is not connection:
            return
        side = held[1].reported(frame.report)
        if side is None:
            return
        self.connections[connection.host] = (connection, side)
        for app in frame.report.apps:
            self.step(Reported(host=connection.host, report=app))
