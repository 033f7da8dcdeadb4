"""What befalls a fleet: a first release, then orders good and bad, under faults, all drawn from the seed."""

from collections.abc import Callable

from agent.decisions.rollout.state import Abort, Pause, Resume
from agent.decisions.swap.hand import way_back
from agent.decisions.swap.state import PinAsked, RestartAsked, UnpinAsked
from agent.model.environment import EnvironmentSettings, RollbackSettings, RollingSettings, Share
from agent.model.ids import HostName, ReleaseName
from tests.simulation.checkers.availability import Availability
from tests.simulation.checkers.ending import ending
from tests.simulation.checkers.epochs import Epochs
from tests.simulation.checkers.failures import Failures
from tests.simulation.checkers.migrations import migrations
from tests.simulation.checkers.pace import Pace
from tests.simulation.checkers.preflight import Preflight
from tests.simulation.checkers.routing import routing
from tests.simulation.checkers.singles import singles
from tests.simulation.checkers.verdicts import HostVerdicts, RolloutVerdicts
from tests.simulation.process import Behaviour, Process
from tests.simulation.world import GAPLESS, WITH_CLOCK, World

Checker = Callable[[World], str]

HOSTS_MIN, HOSTS_MAX = 2, 4
FOR_GOOD_MS = 10**9
HAPPENINGS_MAX = 20_000
"""A world in which more happens does not come to rest."""
BAD = (
    Behaviour(ready=False),
    Behaviour(slow_ms=9_000),
    Behaviour(crashes=True),
    Behaviour(fetchable=False),
    Behaviour(startable=False),
)


class BreachError(AssertionError):
    """An invariant does not hold."""


def play(world: World) -> None:
    """Live through one seed. Raises `BreachError` in the moment in which an invariant is broken."""
    watch = Watch(world)
    world.start_coordinator()
    watch.pass_time(2_000)
    world.coordinator.order("swap", "v1")
    watch.pass_time(30_000)
    if world.coordinator.store.runs is None:
        raise BreachError("v1 was not released, though nothing was wrong with it")
    _spoil(world)
    _under_faults(world, watch, lambda: world.coordinator.order("swap", "v2"))
    if world.rng.random() < 0.5:
        _under_faults(world, watch, lambda: _next_order(world))
    breach = ending(world)
    if breach:
        raise BreachError(f"in the end: {breach}")


def breach_of(seed: int) -> str:
    """What is broken when that seed is played; empty for nothing."""
    try:
        play(make(seed))
    except BreachError as breach:
        return str(breach)
    return ""


def make(seed: int) -> World:
    """The world of a seed: its pace, whether there is a stop-first type."""
    world = World(seed)
    rng = world.rng
    world.spec = rng.choice((GAPLESS, WITH_CLOCK))
    world.coordinator.settings = EnvironmentSettings(
        rolling=RollingSettings(
            batch=Share(count=rng.choice((1, 1, 2, 3))),
            max_unavailable=Share(count=rng.choice((1, 1, 2))),
            min_ready_ms=rng.choice((0, 500, 2_000)),
            deadline_ms=8_000,
            progress_deadline_ms=60_000,
            pause_between_ms=rng.choice((0, 0, 3_000)),
            on_failure=rng.choice(("rollback", "rollback", "pause")),
        ),
        rollback=RollbackSettings(max_unavailable=Share(count=rng.choice((1, 3)))),
        linger_ms=rng.choice((None, 0, 1_200)),
    )
    return world


class Watch:
    """Lets time pass and looks at every invariant after each thing that happened."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._checkers: tuple[Checker, ...] = (
            Availability(), routing, singles, migrations, Epochs(), Pace(), Preflight(), HostVerdicts(),
            RolloutVerdicts(), Failures(),
        )  # fmt: skip

    def pass_time(self, duration_ms: int) -> None:
        timeline = self._world.timeline
        end_ms = timeline.now_ms + duration_ms
        while timeline.next(end_ms):
            for checker in self._checkers:
                breach = checker(self._world)
                if breach:
                    raise BreachError(f"at {timeline.now_ms} ms: {breach}")
            if timeline.happened > HAPPENINGS_MAX:
                raise BreachError(f"at {timeline.now_ms} ms: this world does not come to rest")


def _spoil(world: World) -> None:
    """Let v2 be bad on some hosts."""
    for name in world.machines:
        if world.rng.random() < 0.25:
            world.behaviours[name, ReleaseName("v2")] = world.rng.choice(BAD)
        if world.rng.random() < 0.05:
            world.behaviours[name, ReleaseName("v2")] = Behaviour(migrates=False)


def _next_order(world: World) -> str:
    """The way back by hand after a swap that was done; a better release after one that was not."""
    runs = world.coordinator.store.runs
    if runs is not None and runs.name == "v2":
        return world.coordinator.order("rollback", "v1")
    return world.coordinator.order("swap", "v3")


def _under_faults(world: World, watch: Watch, order: Callable[[], str]) -> None:
    """An order, some faults while it is carried out, then time enough for every deadline."""
    world.timeline.after(0, order)
    for _ in range(world.rng.randint(0, 5)):
        gap_ms = world.rng.choice((20, 100, 400, 1_500, 4_000))
        world.timeline.after(gap_ms, lambda: befall(world))
        watch.pass_time(gap_ms)
    watch.pass_time(100_000)
    for fuse in (world.coordinator.fuse, *(machine.fuse for machine in world.machines.values())):
        fuse.put_out()
    abort, resume = Abort(by="operator"), Resume(by="operator")
    for word in (world.rng.choice((abort, resume)), abort, resume):  # a rollback cannot be aborted, only resumed
        rollout = world.coordinator.rollout
        if rollout is not None and rollout.state == "paused":
            world.coordinator.step(word)
        watch.pass_time(100_000)


def befall(world: World) -> None:
    """One fault, of a kind and at a place drawn from the world's seed."""
    fault = world.rng.choice(list(FAULTS))
    host = world.rng.choice(list(world.machines))
    world.note(f"{fault} ({host})")
    FAULTS[fault](world, host)


def _crash(world: World, host: HostName) -> None:
    _some_process(world, host, Process.crash)


def _lose_readiness(world: World, host: HostName) -> None:
    _some_process(world, host, Process.lose_readiness)


def _some_process(world: World, host: HostName, befalls: Callable[[Process], None]) -> None:
    processes = world.machines[host].processes
    if processes:
        befalls(processes[world.rng.choice(sorted(processes))])


def _cut_off(world: World, host: HostName) -> None:
    if not world.cut:
        world.part(host, for_ms=FOR_GOOD_MS)


def _pause(world: World, _: HostName) -> None:
    world.coordinator.step(Pause(by="operator"))
    world.timeline.after(world.rng.randint(100, 3_000), lambda: world.coordinator.step(Resume(by="operator")))


def _order_again(world: World, _: HostName) -> None:
    if world.coordinator.rollout is not None and world.coordinator.up and not world.coordinator.order("swap", "v9"):
        raise BreachError("a second rollout was begun")


def _join(world: World, _: HostName) -> None:
    if len(world.machines) < HOSTS_MAX:
        world.join()


def _leave(world: World, host: HostName) -> None:
    if len(world.machines) > HOSTS_MIN:
        world.leave(host)


def _jump(world: World, host: HostName) -> None:
    world.coordinator.skew_ms += world.rng.choice((-3_600_000, -5_000, 5_000, 3_600_000))
    world.machines[host].skew_ms += world.rng.choice((-3_600_000, 3_600_000))


def _go_back(world: World, host: HostName) -> None:
    """A person goes back on the host, and lets it follow again before long."""
    machine = world.machines[host]
    target = way_back(machine.state)
    if target is not None and target.name in machine.fetched:
        machine.step(PinAsked(release=target, spec=world.spec_of(target.name)))
        world.timeline.after(world.rng.randint(100, 30_000), lambda: machine.step(UnpinAsked()))


FAULTS: dict[str, Callable[[World, HostName], object]] = {
    "the coordinator is killed": lambda world, _: world.kill_coordinator(restart_ms=world.rng.randint(50, 3_000)),
    "the coordinator dies in the middle of a step": lambda world, _: world.coordinator.fuse.light(
        world.rng.randint(1, 8)
    ),
    "the agent is killed, its processes end": lambda world, host: world.kill_agent(host, adopts=False),
    "the agent is killed, its processes live on": lambda world, host: world.kill_agent(host, adopts=True),
    "the agent dies in the middle of a step": lambda world, host: world.machines[host].fuse.light(
        world.rng.randint(1, 20)
    ),
    "the power fails": lambda world, host: world.lose_power(host),
    "a process crashes": _crash,
    "a process loses its readiness for a while": _lose_readiness,
    "the host is cut off for a while": lambda world, host: world.part(host, for_ms=world.rng.randint(500, 20_000)),
    "the host is cut off for good": _cut_off,
    "a coordinator of a past epoch speaks": lambda world, host: world.haunt(host),
    "the operator aborts": lambda world, _: world.coordinator.step(Abort(by="operator")),
    "the operator pauses, and resumes": _pause,
    "the operator orders again": _order_again,
    "another host joins": _join,
    "the host leaves": _leave,
    "the clocks jump": _jump,
    "a person restarts everything": lambda world, host: world.machines[host].step(RestartAsked()),
    "a person goes back": _go_back,
}
