"""When the faults have ended: the rollout is over, and every host runs, whole and settled, what the environment runs."""

from tests.simulation.machine import Behaviour
from tests.simulation.world import SPEC, World


def ending(world: World) -> str:
    if world.rollout is not None:
        return f"rollout {world.rollout.id} is still {world.rollout.state}: {world.rollout.reason}"
    runs = world.store.runs.name if world.store.runs else None
    for name, machine in world.machines.items():
        held = machine.state.assignment
        if (
            held is None
            or held != world.store.assignments[name]
            and held.generation != world.store.assignments[name].generation
        ):
            return f"{name} never got its newest assignment"
        if machine.state.phase == "failed" and machine.behaviour(name, runs or "") != Behaviour():
            continue  # left behind by the rollout, it met a release that is bad on this host alone: it keeps what served
        other = [str(view.release) for view in machine.processes.values() if view.release != runs]
        if other:
            return f"{name} still runs {', '.join(other)}, the environment runs {runs}"
        for process in SPEC.processes if runs else ():
            ready = sum(
                view.state == "ready" for (owner, _), view in machine.processes.items() if owner == process.name
            )
            if ready != process.count:
                return f"{name} runs {ready} of {process.count} {process.name} of {runs} ({machine.state.phase})"
    return ""


def never_again(world: World) -> str:
    """A release that failed does not start again by itself, once its rollout is over and the host has been told."""
    for rollout in world.store.ended:
        if rollout.state not in ("rolled_back", "failed", "aborted") or rollout.kind == "rollback":
            continue
        for name, machine in world.machines.items():
            told = machine.told.get(rollout.id)
            late = [at for at, release in machine.launched if release == rollout.release.name and told and at > told]
            if late:
                return f"{name} launched {rollout.release.name} at {late[0]} ms, after {rollout.id} was over there"
    return ""
