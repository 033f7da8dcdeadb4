"""After the faults: the rollout is over, and every host runs, whole and settled, what the environment runs."""

from tests.simulation.machine import Machine
from tests.simulation.process import GOOD
from tests.simulation.world import World


def ending(world: World) -> str:
    coordinator = world.coordinator
    if coordinator.rollout is not None:
        return f"rollout {coordinator.rollout.id} is still {coordinator.rollout.state}: {coordinator.rollout.reason}"
    for name in set(coordinator.store.members) - world.cut:
        breach = _astray(world, world.machines[name])
        if breach:
            return f"{name} {breach}"
    return ""


def _astray(world: World, machine: Machine) -> str:
    runs, newest = world.coordinator.store.runs, world.coordinator.store.assignments.get(machine.name)
    held = machine.state.assignment
    if newest is None:
        return "was never assigned anything" if runs is not None else ""
    if held is None or held.generation != newest.generation or held.release != runs:
        return f"never got its newest assignment, {newest.generation}"
    if runs is None:
        return "still runs something" if machine.processes else ""
    if world.behaviour(machine.name, runs.name) != GOOD:
        return ""  # left behind by the rollout, it met a release that is bad on this host alone
    others = sorted({process.release for process in machine.processes.values()} - {runs.name})
    if others:
        return f"still runs {', '.join(others)}, the environment runs {runs.name}"
    for kind in world.spec_of(runs.name).processes:
        ready = sum(
            process.view.state == "ready" for (name, _), process in machine.processes.items() if name == kind.name
        )
        if ready != kind.count:
            return f"runs {ready} of {kind.count} {kind.name} of {runs.name} ({machine.state.phase})"
        if len(machine.routes.get(kind.name, ())) != ready:
            return f"has {ready} {kind.name} and gives traffic to {machine.routes.get(kind.name)}"
    return ""
