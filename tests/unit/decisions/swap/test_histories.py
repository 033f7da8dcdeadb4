"""What holds for a host whose counts change, while people stop and restart, instances exit, and the agent dies."""

from collections.abc import Callable
from typing import Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.decisions.swap import plan
from agent.decisions.swap.slots import LIVE, has_ended
from agent.decisions.swap.state import (
    Assigned,
    Forget,
    InstanceView,
    Launch,
    Observed,
    Prepare,
    Prepared,
    RestartAsked,
    Restarted,
    Stop,
    StopAsked,
    SwapAction,
    SwapEvent,
    SwapState,
    Tick,
    durable,
)
from agent.model.assignment import Assignment, InstanceState, ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, ProcessName, ReleaseName
from agent.model.process import AppSpec, ProcessType, RestartPolicy
from agent.model.release import Order
from agent.model.units import Instant

APP, LOCAL = AppName("shop"), EnvironmentName("local")
WEB, WORKER, JOB = ProcessName("web"), ProcessName("worker"), ProcessName("job")
SPEC: Final = AppSpec(
    app=APP,
    processes=(
        ProcessType(name=WEB, command="bin/web", count=2),
        ProcessType(name=WORKER, command="bin/worker", count=1, swap="stop-first"),
        ProcessType(name=JOB, command="bin/job", count=1, restart=RestartPolicy(policy="never")),
    ),
)
V1: Final = ReleaseRef(name=ReleaseName("v1"), digest=Digest("sha256:v1"))
ORDER: Final = Order(
    kind="swap",
    app=APP,
    environment=LOCAL,
    release=V1.name,
    release_digest=V1.digest,
    replaces=None,
    replaces_digest=None,
    sequence=1,
)
ROUNDS_AT_REST: Final = 3
SETTLED_MS: Final = 300_000
BY_ITSELF: Final = "exited with code 0"
TYPES: Final = st.sampled_from([WEB, WORKER, JOB])
Place = tuple[ProcessName, int]


class World:
    """One host and what runs on it; at every action it is looked whether it may be."""

    def __init__(self) -> None:
        self.now_ms, self.epoch, self.generation = 0, 1, 0
        self.counts: dict[ProcessName, int] = {}
        self.instances: dict[Place, InstanceView] = {}
        self.excused: set[ProcessName] = set()
        """Types of which a person, or a lower count, has taken something away."""
        self.touched: set[ProcessName] = set()
        self.state = SwapState()
        self.fetching = False
        self.give()
        self.settle()

    @property
    def now(self) -> Instant:
        return Instant("boot", self.now_ms, self.now_ms)

    def take(self, event: SwapEvent) -> None:
        if isinstance(event, Observed):
            event = Observed(instances=tuple(self.instances.values()))
        before, decision = self._halts(), plan.step(self.state, event, self.now)
        self.state = decision.state
        if not isinstance(event, RestartAsked):
            for name, _ in before - self._halts():
                assert self._taken(name) >= self._declared(name), "a stopped place is given up though there is room"
                assert not any(isinstance(a, Launch) and a.process == name for a in decision.actions), "started anew"
        for action in decision.actions:
            self.act(action)

    def act(self, action: SwapAction) -> None:
        match action:
            case Launch(process=process, slot=slot):
                assert (process, slot) not in self.instances, "two instances of a slot"
                assert (process, slot) not in self._halts(), "what a person stopped is started"
                self.touched.add(process)
                view = InstanceView(
                    process=process, slot=slot, release=V1.name, state="starting", since=self.now, launched=self.now
                )
                self.instances[process, slot] = view
            case Stop(process=process, slot=slot):
                self.touched.add(process)
                if self.instances[process, slot].state in LIVE:  # else it has just ended, and nobody has looked yet
                    self.see((process, slot), "draining")
            case Forget(process=process, slot=slot):
                gone = self.instances.pop((process, slot))
                assert gone.state == "stopped"
                assert not has_ended(gone) or process in self.excused, "what ended by itself is started again"
            case Prepare():
                self.fetching = True

    def _halts(self) -> set[Place]:
        return {(halt.process, halt.slot) for halt in self.state.halts}

    def _taken(self, process: ProcessName) -> int:
        running = sum(view.process == process and view.state in LIVE for view in self.state.instances)
        return running + sum(name == process for name, _ in self._halts())

    def see(self, place: Place, state: InstanceState, detail: str = "") -> None:
        self.instances[place] = replace(self.instances[place], state=state, since=self.now, detail=detail)

    # What may happen

    def give(self, key: str = "") -> None:
        """The newest assignment, perhaps once more and with the key encrypted anew."""
        assignment = Assignment(
            app=APP,
            environment=LOCAL,
            epoch=self.epoch,
            generation=self.generation,
            release=V1,
            order="",
            prepare=(V1,),
            counts=self.counts,
            min_ready_ms=1_000,
            deadline_ms=30_000,
            environment_key=f"sealed {key}",
        )
        self.take(Assigned(assignment=assignment, order=ORDER))

    def scale(self, process: ProcessName, count: int) -> None:
        before = self._declared(process)
        if count == before:
            return
        if count < before:
            self.excused.add(process)
        self.counts = {**self.counts, process: count}
        self.generation += 1
        self.give()

    def coordinator_starts_anew(self) -> None:
        self.epoch += 1
        self.give(key=f"anew {self.epoch}")

    def agent_dies(self) -> None:
        self.state = msgspec.json.decode(msgspec.json.encode(durable(self.state)), type=SwapState)
        self.take(Restarted())
        self.take(Observed(instances=()))

    def fetched(self) -> None:
        if self.fetching:
            self.fetching = False
            self.take(Prepared(release=V1, spec=SPEC))

    def by_hand(self, event: StopAsked | RestartAsked) -> None:
        if plan.step(self.state, event, self.now).refused:
            return
        meant = {
            place
            for place in {*self.instances, *self._halts()}
            if event.process in (None, place[0]) and event.slot in (None, place[1])
        }
        self.excused |= {process for process, _ in meant}
        self.take(event)

    def exit(self, place: Place) -> None:
        """Its process ends, at whatever it was; the policy decides what that means."""
        state = self.instances[place].state
        if state == "draining":
            self.see(place, "stopped")
        elif state in LIVE:
            self.see(place, *(("stopped", BY_ITSELF) if place[0] == JOB else ("backoff", "exited with code 1")))

    def settle(self) -> None:
        """Everything that is under way comes to a good end."""
        at_rest, until_ms = 0, self.now_ms + SETTLED_MS
        while at_rest < ROUNDS_AT_REST:
            before = self.instances.copy()
            self.fetched()
            self.now_ms += 1_500
            for place, view in list(self.instances.items()):
                if view.state == "draining":
                    self.see(place, "stopped")
                elif view.state in ("starting", "backoff", "unready"):
                    self.see(place, "ready")
            self.take(Observed(instances=()))
            self.take(Tick())
            at_rest = at_rest + 1 if self.instances == before else 0
            assert self.now_ms < until_ms, "it never comes to rest"

    def ready(self, process: ProcessName) -> int:
        return sum(view.state == "ready" for view in self.instances.values() if view.process == process)

    def ended(self, process: ProcessName) -> int:
        return sum(has_ended(view) for view in self.instances.values() if view.process == process)

    def wanted(self, process: ProcessName) -> int:
        """The count, but for places that a person has stopped."""
        halted = sum(name == process for name, _ in self._halts())
        return max(0, self._declared(process) - halted)

    def _declared(self, process: ProcessName) -> int:
        return self.counts.get(process, next(one.count for one in SPEC.processes if one.name == process))


def happens(data: st.DataObject, world: World) -> None:
    """One thing of all that can happen now."""
    places = sorted(world.instances)
    process = data.draw(TYPES)
    slot = data.draw(st.none() | st.integers(1, 4))
    events: list[Callable[[], object]] = [
        lambda: world.scale(process, data.draw(st.integers(0, 4))),
        lambda: world.by_hand(StopAsked(process=process, slot=slot)),
        lambda: world.by_hand(RestartAsked(process=process, slot=slot)),
        world.agent_dies,
        world.coordinator_starts_anew,
        world.give,
        world.fetched,
        lambda: world.take(Tick()),
        lambda: world.take(Observed(instances=())),
    ]
    if places:
        place = data.draw(st.sampled_from(places))
        events += [lambda: world.exit(place)] * 3
        if world.instances[place].state in ("starting", "backoff"):
            events += [lambda: world.see(place, "ready")] * 3
    data.draw(st.sampled_from(events))()


@given(st.data())
def test_every_count_is_reached_whatever_races_with_it(data: st.DataObject) -> None:
    """Never two instances of a slot; what a person stopped, or ended by itself, stays so; the last count is reached."""
    world = World()
    for _ in range(data.draw(st.integers(0, 30))):
        happens(data, world)
        world.now_ms += data.draw(st.sampled_from([0, 1, 500, 2_000, 40_000]))
    world.settle()
    for process in (WEB, WORKER, JOB):
        wanted, ready = world.wanted(process), world.ready(process)
        assert ready <= wanted <= ready + world.ended(process), process
    if not any(has_ended(view) for view in world.instances.values()):
        assert (world.state.phase, world.state.scaling) == ("done", None)


@given(st.data())
def test_a_new_count_touches_no_other_type(data: st.DataObject) -> None:
    """However often the count of web changes, and whoever dies meanwhile, the other types are left alone."""
    world = World()
    world.touched.clear()
    for _ in range(data.draw(st.integers(1, 15))):
        world.scale(WEB, data.draw(st.integers(0, 4)))
        if data.draw(st.booleans()):
            data.draw(st.sampled_from([world.agent_dies, world.coordinator_starts_anew]))()
        own = [place for place in sorted(world.instances) if place[0] == WEB]
        if len(own) > 0 and data.draw(st.booleans()):
            world.exit(data.draw(st.sampled_from(own)))
        world.take(Observed(instances=()))
    world.settle()
    assert world.touched <= {WEB}
    assert world.ready(WEB) == world.wanted(WEB)


@given(st.integers(0, 4), st.integers(0, 4))
def test_more_leave_what_runs_alone_and_fewer_stop_the_highest(before: int, after: int) -> None:
    """From one count to another: so many are started or stopped as they differ by, the highest slots first."""
    world = World()
    world.scale(WEB, before)
    world.settle()
    pids = {place: view.launched for place, view in world.instances.items()}
    world.scale(WEB, after)
    world.settle()
    slots = {slot for name, slot in world.instances if name == WEB}
    assert slots == set(range(1, after + 1))
    kept = {place: view.launched for place, view in world.instances.items() if place in pids}
    assert kept == {place: launched for place, launched in pids.items() if place[0] != WEB or place[1] <= after}
