"""A simulated coordinator: the pure core of a rollout over a database that survives `kill -9`."""

from collections.abc import Callable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agent.decisions.rollout import begin, converge, stable
from agent.decisions.rollout import step as rollouts
from agent.decisions.rollout.state import (
    Begin,
    Ended,
    Give,
    HostsChanged,
    Reachable,
    Restarted,
    RolloutEvent,
    Tick,
    Wake,
)
from agent.model.assignment import Assignment, ReleaseRef
from agent.model.environment import EnvironmentSettings
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ReleaseName, RolloutId
from agent.model.process import AppSpec
from agent.model.release import Order, OrderKind
from agent.model.rollout import HostStep, Rollout
from agent.model.units import Instant
from tests.simulation.clock import Timeline
from tests.simulation.fuse import Fuse

APP, ENVIRONMENT = AppName("shop"), EnvironmentName("local")


def ref(name: str) -> ReleaseRef:
    return ReleaseRef(name=ReleaseName(name), digest=Digest(f"sha256:{name}"))


class Store(Struct, frozen=True, kw_only=True):
    """What the database holds: all that is left of a coordinator after `kill -9`."""

    epoch: int = 1
    rollouts: tuple[Rollout, ...] = ()
    assignments: dict[HostName, Assignment] = {}
    members: tuple[HostName, ...] = ()
    runs: ReleaseRef | None = None
    stable: tuple[ReleaseRef, ...] = ()
    sequence: int = 0
    orders: dict[str, Order] = {}


class Coordinator:
    """`send` carries an assignment to a connected host; `die` is what happens where its fuse burns out."""

    def __init__(
        self,
        timeline: Timeline,
        *,
        settings: EnvironmentSettings,
        spec_of: Callable[[ReleaseName], AppSpec],
        members: tuple[HostName, ...],
        send: Callable[[HostName, Assignment], None],
        die: Callable[[], None],
    ) -> None:
        self.timeline, self.settings, self.spec_of = timeline, settings, spec_of
        self.send, self.die = send, die
        self.store = Store(members=members)
        self.connected: set[HostName] = set()
        self.up = False
        self.life = 0
        self.skew_ms = 0
        self.fuse = Fuse()
        self.said: list[tuple[int, str]] = []
        """What it decided, for a person who replays a seed."""
        self._disk = msgspec.json.encode(self.store)
        self._timer = 0

    @property
    def rollout(self) -> Rollout | None:
        """The one that is under way."""
        return next((rollout for rollout in self.store.rollouts if not rollout.terminal), None)

    @property
    def now_ms(self) -> int:
        return self.timeline.now_ms + self.skew_ms

    @property
    def now(self) -> Instant:
        return Instant("coordinator", self.timeline.now_ms, self.now_ms)

    def start(self) -> None:
        self.store = msgspec.json.decode(self._disk, type=Store)
        self.up = True
        self._commit(replace(self.store, epoch=self.store.epoch + 1))
        if self.rollout is not None:
            self.step(Restarted())

    def kill(self) -> None:
        self.up = False
        self.life += 1
        self.connected.clear()

    def connect(self, host: HostName) -> None:
        self.connected.add(host)
        self.step(Reachable(host=host, reachable=True))
        self._converge()
        if host in self.store.assignments:
            self._send(host)

    def disconnect(self, host: HostName) -> None:
        self.connected.discard(host)
        self.step(Reachable(host=host, reachable=False))

    def change_members(self, members: tuple[HostName, ...]) -> None:
        if self.up:
            self._commit(replace(self.store, members=members))
            self.step(HostsChanged(hosts=members))

    def step(self, event: RolloutEvent) -> str:
        """As the coordinator's shell does it: decide, commit, then send. Gives why an operator's word was refused."""
        rollout = self.rollout
        if rollout is None or not self.up:
            return "there is no rollout"
        decision = rollouts.step(rollout, event, self.now)
        if decision.refused:
            return decision.refused
        if decision.changed and self.fuse.burns_out():
            self.die()
            return "no answer"
        store = replace(
            self.store,
            rollouts=tuple(decision.state if one.id == rollout.id else one for one in self.store.rollouts),
        )
        gives: list[HostName] = []
        for action in decision.actions:
            match action:
                case Give():
                    store = self._give(store, action, rollout.order)
                    gives.append(action.host)
                case Ended():
                    store = replace(store, runs=action.runs, stable=stable.after(store.stable, rollout.kind, action))
                case Wake(after_ms=after_ms):
                    self._wake(after_ms)
        if decision.changed:
            self._commit(store)
        self.store = store
        self._tell(rollout, decision.state)
        for host in gives:
            if self.fuse.burns_out():
                self.die()
                return ""
            self._send(host)
        if decision.state.terminal:
            self._converge()
        return ""

    def order(self, kind: OrderKind, release: str) -> str:
        """An operator's swap or rollback; gives why it is refused."""
        if self.rollout is not None:
            return f"rollout {self.rollout.id} is under way"
        target, runs = ref(release), self.store.runs
        order = Order(
            kind=kind,
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
            rollout_id=RolloutId(f"r{order.sequence}"),
            order=order,
            envelope=envelope,
            settings=self.settings,
            spec=self.spec_of(target.name),
            hosts=tuple(
                HostStep(host=host, reachable=host in self.connected, since_ms=self.now_ms)
                for host in self.store.members
            ),
            first_generation=max((held.generation for held in self.store.assignments.values()), default=0) + 1,
            asked_by="operator",
            now_ms=self.now_ms,
        )
        self._commit(
            replace(
                self.store,
                rollouts=(*self.store.rollouts, rollout),
                sequence=order.sequence,
                orders={**self.store.orders, envelope: order},
            )
        )
        return self.step(Begin())

    def _commit(self, store: Store) -> None:
        self.store = store
        self._disk = msgspec.json.encode(store)

    def _give(self, store: Store, give: Give, order: str) -> Store:
        assignment = Assignment(
            app=APP,
            environment=ENVIRONMENT,
            epoch=store.epoch,
            generation=give.generation,
            release=give.release,
            order=order,
            prepare=give.prepare,
            admin=give.admin,
            min_ready_ms=self.settings.rolling.min_ready_ms,
            deadline_ms=self.settings.rolling.deadline_ms,
            linger_ms=self.settings.linger_ms,
        )
        return replace(store, assignments={**store.assignments, give.host: assignment})

    def _converge(self) -> None:
        """Give hosts that no rollout looks after what the environment runs."""
        store = self.store
        gives = converge.converge(
            runs=store.runs,
            back_to=store.stable[-1] if store.stable else None,
            hosts=store.members,
            assigned=store.assignments,
            rollout_is_live=self.rollout is not None,
        )
        for give in gives:
            store = self._give(store, give, f"order-{store.sequence}")
        if gives:
            self._commit(store)
        for give in gives:
            self._send(give.host)

    def _send(self, host: HostName) -> None:
        if host in self.connected:
            self.send(host, replace(self.store.assignments[host], epoch=self.store.epoch))

    def _wake(self, after_ms: int) -> None:
        """One timer: the newest takes the place of the one before."""
        self._timer += 1
        timer, life = self._timer, self.life

        def tick() -> None:
            if (timer, life) == (self._timer, self.life):
                self.step(Tick())

        self.timeline.after(after_ms, tick)

    def _tell(self, before: Rollout, after: Rollout) -> None:
        if before.state != after.state:
            self.said.append((self.timeline.now_ms, f"{after.id} {after.release.name} {after.state}: {after.reason}"))
