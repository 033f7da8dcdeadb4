"""Every swap and rollout is stopped at every place, starts again from what is stored, and comes to the same end.

The places: before each decision that changes something is stored, and before each action that follows from it.
"""

import random
from collections import Counter
from collections.abc import Callable

import pytest
from msgspec import Struct

from agent.decisions.rollout.state import Abort
from agent.decisions.swap.state import PinAsked, RestartAsked, StopAsked, SwapEvent
from agent.model.assignment import AdminRun, Assignment
from agent.model.environment import EnvironmentSettings, RollingSettings
from agent.model.ids import HostName, ReleaseName, RolloutId
from agent.model.process import AppSpec
from agent.model.release import Order, OrderKind
from agent.wire.messages import Assign, encode
from tests.simulation.checkers.ending import ending
from tests.simulation.clock import Timeline
from tests.simulation.coordinator import APP, ENVIRONMENT, ref
from tests.simulation.machine import Machine
from tests.simulation.process import GOOD, Behaviour
from tests.simulation.scenarios import BreachError, Watch
from tests.simulation.world import GAPLESS, WEB, WITH_CLOCK, World

H1 = HostName("h1")
V2 = ReleaseName("v2")
REST_MS = 40_000
RELEASED_MS = 20_000


class Wish(Struct, frozen=True, kw_only=True):
    """One assignment: what is to run, by which order."""

    runs: str | None
    by: str
    """`v1 v2`: from which release to which."""
    kind: OrderKind = "swap"
    web: int = 2
    migrates: bool = False


class Swap(Struct, frozen=True, kw_only=True):
    """Assignments of one host, each given when the one before has come to rest, and how v2 behaves there."""

    wishes: tuple[Wish, ...]
    v2: Behaviour = GOOD
    spec: AppSpec = WITH_CLOCK
    by_hand: SwapEvent | None = None
    """What a person asks for at last."""


V1 = Wish(runs="v1", by="nothing v1")
TO_V2 = Wish(runs="v2", by="v1 v2")
BACK = Wish(runs="v1", by="v1 v2")
SWAPS: dict[str, Swap] = {
    "a first release": Swap(wishes=(V1,)),
    "a swap": Swap(wishes=(V1, TO_V2)),
    "a swap without a stop-first type": Swap(wishes=(V1, TO_V2), spec=GAPLESS),
    "a swap to fewer instances": Swap(wishes=(V1, Wish(runs="v2", by="v1 v2", web=1))),
    "a swap to more instances": Swap(wishes=(V1, Wish(runs="v2", by="v1 v2", web=4))),
    "a release command": Swap(wishes=(V1, Wish(runs="v1", by="v1 v2", migrates=True))),
    "a release that never becomes ready, and the way back": Swap(wishes=(V1, TO_V2, BACK), v2=Behaviour(ready=False)),
    "a release that crashes, and the way back": Swap(wishes=(V1, TO_V2, BACK), v2=Behaviour(crashes=True)),
    "a release that cannot be fetched, and the way back": Swap(wishes=(V1, TO_V2, BACK), v2=Behaviour(fetchable=False)),
    "a rollback": Swap(wishes=(V1, TO_V2, Wish(runs="v1", by="v2 v1", kind="rollback"))),
    "a restart by hand": Swap(wishes=(V1,), by_hand=RestartAsked()),
    "a restart by hand of one instance": Swap(wishes=(V1,), by_hand=RestartAsked(process=WEB, slot=1)),
    "a stop by hand": Swap(wishes=(V1,), by_hand=StopAsked(process=WEB, slot=2)),
    "a way back by hand": Swap(wishes=(V1, TO_V2), by_hand=PinAsked(release=ref("v1"), spec=WITH_CLOCK)),
    "everything stopped": Swap(wishes=(V1, Wish(runs=None, by="nothing v1"))),
}


class LoneHost:
    """One machine, and a coordinator that gives it the newest assignment again whenever its agent has died."""

    def __init__(self, swap: Swap, *, adopts: bool) -> None:
        self.timeline = Timeline()
        self._orders: dict[str, Order] = {}
        self._swap, self._adopts = swap, adopts
        self._newest = b""
        self.machine = Machine(
            H1,
            self.timeline,
            random.Random(1),  # noqa: S311
            spec_of=lambda release: swap.spec,
            behaviour=lambda host, release: swap.v2 if release == V2 else GOOD,
            read_order=lambda envelope: self._orders[envelope],
        )
        self.machine.die = self._die

    def live(self) -> None:
        for generation, wish in enumerate(self._swap.wishes, 1):
            self._give(generation, wish)
            self._rest()
        if self._swap.by_hand is not None:
            self._ask(self._swap.by_hand)
            self._rest()

    def _rest(self) -> None:
        end_ms = self.timeline.now_ms + REST_MS
        while self.timeline.next(end_ms):
            pass

    def _ask(self, wish: SwapEvent) -> None:
        """As a person does, who asks again where nobody has answered: what is answered is stored."""
        state = self.machine.state
        if not (state.renewal or state.halts or state.pin):
            self.timeline.after(200, lambda: self._ask(wish))
            self.machine.step(wish)

    def end(self) -> object:
        """How it ended, whatever the places are called."""
        state = self.machine.state
        running = Counter((one.kind.name, one.release, one.view.state) for one in self.machine.processes.values())
        by_hand = (state.halts and [halt.slot for halt in state.halts], state.pin and state.pin.release)
        return state.phase, running, len(self.machine.routes.get(WEB, ())), by_hand

    def _give(self, generation: int, wish: Wish) -> None:
        before, after = wish.by.split()
        replaces = None if before == "nothing" else ref(before)
        sequence = next((n for n, name in enumerate(self._orders, 1) if name == wish.by), len(self._orders) + 1)
        self._orders[wish.by] = Order(
            kind=wish.kind,
            app=APP,
            environment=ENVIRONMENT,
            release=ref(after).name,
            release_digest=ref(after).digest,
            replaces=replaces.name if replaces else None,
            replaces_digest=replaces.digest if replaces else None,
            sequence=sequence,
        )
        assignment = Assignment(
            app=APP,
            environment=ENVIRONMENT,
            epoch=1,
            generation=generation,
            release=ref(wish.runs) if wish.runs else None,
            order=wish.by,
            prepare=(ref(after), *((replaces,) if replaces else ())),
            admin=AdminRun(rollout=RolloutId("r1"), release=ref(after)) if wish.migrates else None,
            counts={WEB: wish.web},
            min_ready_ms=500,
            deadline_ms=8_000,
        )
        self._newest = encode(Assign(assignment=assignment))
        self.machine.receive(self._newest)

    def _die(self) -> None:
        self.machine.kill_agent(adopts=self._adopts)
        newest = self._newest
        self.timeline.after(100, lambda: self.machine.receive(newest))


@pytest.mark.parametrize("adopts", [False, True], ids=["processes end with it", "processes live on"])
@pytest.mark.parametrize("swap", SWAPS.values(), ids=list(SWAPS))
def test_a_swap_survives_its_agent_at_every_place(swap: Swap, *, adopts: bool) -> None:
    """Wherever the agent dies, it ends with the same instances of the same release; its command never runs twice."""
    whole = LoneHost(swap, adopts=adopts)
    whole.live()
    places = whole.machine.fuse.looks
    assert places > 10
    for place in range(1, places + 1):
        host = LoneHost(swap, adopts=adopts)
        host.machine.fuse.light(place)
        host.live()
        assert host.end() == whole.end(), f"died at place {place} of {places}"
        assert len(host.machine.migrated) <= 1
        if adopts and swap.by_hand is not None:
            assert len(host.machine.launched) == len(whole.machine.launched), f"died at place {place}: not done once"
        admin = host.machine.state.admin
        assert admin is None or admin.state != "running", f"died at place {place} of {places}"


class Course(Struct, frozen=True, kw_only=True):
    """A rollout of v2 over v1 (or of v2 first of all), how v2 behaves on h2, and how it ends."""

    ends: str
    runs: str | None
    h2: Behaviour = GOOD
    everywhere: Behaviour = GOOD
    first: bool = False
    rolls_back: bool = False
    aborted_after_ms: int | None = None
    spec: AppSpec = WITH_CLOCK


COURSES: dict[str, Course] = {
    "a good release": Course(ends="done", runs="v2"),
    "a good release without a stop-first type": Course(ends="done", runs="v2", spec=GAPLESS),
    "a release that is bad on the second host": Course(ends="rolled_back", runs="v1", h2=Behaviour(startable=False)),
    "a release command that fails": Course(ends="failed", runs="v1", everywhere=Behaviour(migrates=False)),
    "a release that one host cannot fetch": Course(ends="failed", runs="v1", h2=Behaviour(fetchable=False)),
    "a first release that is bad": Course(ends="failed", runs=None, everywhere=Behaviour(startable=False), first=True),
    "an abort": Course(ends="aborted", runs="v1", aborted_after_ms=2_500),
    "a rollback": Course(ends="done", runs="v1", rolls_back=True),
}


def lived(course: Course, arm: Callable[[World], None]) -> World:
    """The world after the course was run, with something armed as the rollout in question begins."""
    settings = EnvironmentSettings(
        rolling=RollingSettings(min_ready_ms=500, deadline_ms=8_000, progress_deadline_ms=60_000)
    )
    world = World(1, settings=settings, spec=course.spec)
    watch = Watch(world)
    world.start_coordinator()
    watch.pass_time(RELEASED_MS)
    if not course.first:
        world.coordinator.order("swap", "v1")
        watch.pass_time(RELEASED_MS)
    for name in world.machines:
        world.behaviours[name, V2] = course.everywhere
    if course.h2 != GOOD:
        world.behaviours[HostName("h2"), V2] = course.h2
    if course.rolls_back:
        world.coordinator.order("swap", "v2")
        watch.pass_time(RELEASED_MS)
    arm(world)
    if course.rolls_back:
        world.coordinator.order("rollback", "v1")
    else:
        world.coordinator.order("swap", "v2")
    if course.aborted_after_ms is not None:
        watch.pass_time(course.aborted_after_ms)
        while world.coordinator.rollout is not None and world.coordinator.step(Abort(by="operator")):
            watch.pass_time(100)  # the operator asks again until somebody answers
    watch.pass_time(120_000)
    return world


def dies_at(place: int) -> Callable[[World], None]:
    return lambda world: world.coordinator.fuse.light(place)


def end(world: World) -> tuple[str, str | None]:
    runs = world.coordinator.store.runs
    return world.coordinator.store.rollouts[-1].state, runs.name if runs else None


@pytest.mark.parametrize("course", COURSES.values(), ids=list(COURSES))
def test_a_rollout_survives_its_coordinator_at_every_place(course: Course) -> None:
    """Wherever the coordinator dies, started again it brings the rollout to the same end, with every host there."""
    before: list[int] = []
    whole = lived(course, lambda world: before.append(world.coordinator.fuse.looks))
    assert end(whole) == (course.ends, course.runs)
    places = whole.coordinator.fuse.looks - before[0]
    assert places > 5
    for place in range(1, places + 1):
        try:
            world = lived(course, dies_at(place))
        except BreachError as breach:
            pytest.fail(f"died at place {place} of {places}: {breach}")
        assert end(world) == (course.ends, course.runs), f"died at place {place} of {places}"
        assert not ending(world), f"died at place {place} of {places}"
