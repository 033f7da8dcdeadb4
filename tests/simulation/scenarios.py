"""What befalls a world: a first release, then a swap to one that may be bad, under faults drawn from the seed."""

from agent.decisions.rollout.state import Abort, Pause, Resume
from agent.model.environment import EnvironmentSettings, RollingSettings, Share
from tests.simulation.checkers.availability import Availability
from tests.simulation.checkers.ending import ending, never_again
from tests.simulation.checkers.epochs import Epochs
from tests.simulation.checkers.migrations import migrations
from tests.simulation.checkers.routing import routing
from tests.simulation.checkers.singles import singles
from tests.simulation.machine import Behaviour
from tests.simulation.world import World

FAULTS = ("coordinator", "agent", "agent that adopts", "power", "process", "cut", "abort", "pause", "clock")


def settings(world: World) -> EnvironmentSettings:
    rng = world.rng
    rolling = RollingSettings(
        batch=Share(count=rng.choice((1, 1, 2, 3))),
        max_unavailable=Share(count=rng.choice((1, 1, 2))),
        min_ready_ms=rng.choice((0, 500, 2_000)),
        deadline_ms=8_000,
        progress_deadline_ms=60_000,
        on_failure=rng.choice(("rollback", "rollback", "pause")),
    )
    return EnvironmentSettings(rolling=rolling)


def watch(world: World, duration_ms: int, checkers: tuple) -> str:
    """Let time pass and look at every invariant after each moment in which something happened; gives the first breach."""
    end_ms = world.timeline.now_ms + duration_ms
    while world.timeline.next_moment(end_ms):
        for checker in checkers:
            breach = checker(world)
            if breach:
                return f"at {world.timeline.now_ms} ms: {breach}"
    return ""


def befall(world: World) -> str:
    """One fault, of a kind and at a place drawn from the world's seed."""
    rng = world.rng
    fault = rng.choice(FAULTS)
    machine = world.machines[rng.choice(list(world.machines))]
    match fault:
        case "coordinator":
            world.kill_coordinator()
            world.timeline.after(rng.randint(50, 3000), world.start_coordinator)
        case "agent":
            world.hang_up(machine.name)
            machine.kill_agent(adopts=False)
        case "agent that adopts":
            world.hang_up(machine.name)
            machine.kill_agent(adopts=True)
        case "power":
            world.hang_up(machine.name)
            machine.lose_power()
        case "process":
            machine.crash_process()
        case "cut":
            world.cut.add(machine.name)
            world.hang_up(machine.name)
            world.timeline.after(rng.randint(500, 20_000), lambda: world.cut.discard(machine.name))
        case "abort":
            world.step(Abort(by="operator"))
        case "pause":
            world.step(Pause(by="operator"))
            world.timeline.after(rng.randint(100, 3000), lambda: world.step(Resume(by="operator")) and None)
        case "clock":
            world.skew_ms += rng.choice((-3_600_000, -5_000, 5_000))
            machine.skew_ms += rng.choice((-3_600_000, 3_600_000))
    return f"{world.timeline.now_ms} ms: {fault} {machine.name}"


def swap_under_faults(seed: int) -> str:
    """Play one seed; gives what was broken, empty for nothing."""
    world = World(seed)
    world.settings = settings(world)
    rng = world.rng
    checkers = (Availability(), routing, singles, migrations, Epochs())
    world.start_coordinator()
    world.run_for(2_000)
    world.order("swap", "v1")
    breach = watch(world, 20_000, checkers)
    if breach or world.store.runs is None or world.store.runs.name != "v1":
        return breach or f"v1 was not released: {world.history}"
    for name in world.machines:
        if rng.random() < 0.25:
            world.behaviours[name, "v2"] = rng.choice(
                (Behaviour(ready=False), Behaviour(crashes=True), Behaviour(fetchable=False))
            )
        if rng.random() < 0.05:
            world.behaviours[name, "v2"] = Behaviour(migrates=False)
    world.order("swap", "v2")
    for _ in range(rng.randint(0, 5)):
        breach = watch(world, rng.choice((20, 100, 400, 1_500, 4_000)), checkers)
        if breach:
            return breach
        world.history.append((world.timeline.now_ms, befall(world)))
    breach = watch(world, 60_000, checkers)
    if world.rollout is not None and world.rollout.state == "paused":
        world.step(rng.choice((Abort(by="operator"), Resume(by="operator"))))
    breach = breach or watch(world, 100_000, checkers[1:])
    if world.rollout is not None and world.rollout.state == "paused":
        world.step(Abort(by="operator"))
        breach = breach or watch(world, 30_000, checkers)
    return breach or ending(world) or never_again(world)
