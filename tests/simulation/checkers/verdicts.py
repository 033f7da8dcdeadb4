"""What is said is so: a host that is done was ready long enough, an ended rollout has its hosts where it says."""

from agent.decisions.swap.hand import aim
from agent.model.ids import HostName, RolloutId
from agent.model.rollout import Rollout
from tests.simulation.machine import Machine
from tests.simulation.world import World

LOOKS_WITHIN_MS = 20


class HostVerdicts:
    """Looks at a host in the moment in which it becomes done."""

    def __init__(self) -> None:
        self._seen: dict[HostName, tuple[int, int, str]] = {}

    def __call__(self, world: World) -> str:
        for name, machine in world.machines.items():
            held = machine.state.assignment
            seen = (machine.life, held.generation if held else 0, machine.state.phase)
            before = self._seen.get(name, seen)
            self._seen[name] = seen
            if seen != before and seen[0] == before[0] and seen[2] == "done":
                breach = _unfinished(world, machine)
                if breach:
                    return f"{name} says that it is done, and {breach}"
        return ""


def _unfinished(world: World, machine: Machine) -> str:
    held = aim(machine.state)
    if held is None or held.release is None:
        return ""
    now_ms = machine.now().boottime_ms
    views = [process.view for process in machine.processes.values()]
    if any(view.release != held.release.name for view in views):
        return "an old instance is left"
    for kind in world.spec_of(held.release.name).processes:
        own = [view for view in views if view.process == kind.name]
        fresh = [view for view in own if now_ms - view.since.boottime_ms <= LOOKS_WITHIN_MS]
        settled = [
            view for view in own if view.state == "ready" and now_ms - view.since.boottime_ms >= held.min_ready_ms
        ]
        if len(settled) != kind.count and not (fresh and len(own) == kind.count):
            return f"{len(settled)} of {kind.count} {kind.name} have been ready for {held.min_ready_ms} ms"
    return ""


class RolloutVerdicts:
    """Looks at a rollout in the moment in which it ends; and that it never changes again, nor runs beside another."""

    def __init__(self) -> None:
        self._ended: dict[RolloutId, Rollout] = {}

    def __call__(self, world: World) -> str:
        live = [rollout.id for rollout in world.coordinator.store.rollouts if not rollout.terminal]
        if len(live) > 1:
            return f"rollouts {', '.join(live)} are under way at once"
        for rollout in world.coordinator.store.rollouts:
            if self._ended.get(rollout.id, rollout) != rollout:
                return f"{rollout.id} changed after it had ended"
            if rollout.terminal and rollout.id not in self._ended:
                self._ended[rollout.id] = rollout
                breach = _misjudged(world, rollout)
                if breach:
                    return f"{rollout.id} is {rollout.state}, and {breach}"
        return ""


def _misjudged(world: World, rollout: Rollout) -> str:
    if rollout.state not in ("done", "rolled_back", "aborted"):
        return ""
    target = rollout.release if rollout.state == "done" else rollout.previous
    for step in rollout.hosts:
        machine = world.machines.get(step.host)
        if machine is None or not step.reachable or step.aside or not (step.moved or rollout.state == "done"):
            continue
        held = machine.state.assignment
        if held is None or held.release != target or held.generation < step.generation or machine.state.phase != "done":
            return f"{step.host} is {machine.state.phase} with {held.release.name if held and held.release else None}"
    return ""
