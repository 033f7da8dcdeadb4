"""A release that failed stays away: it takes no traffic later, and starts nowhere once its rollout is over."""

from agent.decisions.swap.orders import returns_to_stable
from agent.model.ids import HostName, RolloutId
from tests.simulation.world import World


class Failures:
    def __init__(self) -> None:
        self._failed_at: dict[tuple[HostName, int], int] = {}
        self._told_at: dict[tuple[HostName, RolloutId], int] = {}

    def __call__(self, world: World) -> str:
        return self._late_traffic(world) or self._comeback(world)

    def _late_traffic(self, world: World) -> str:
        for name, machine in world.machines.items():
            held = machine.state.assignment
            if held is None or held.release is None or machine.state.phase != "failed":
                continue
            if returns_to_stable(machine.state):
                continue
            failed_at = self._failed_at.setdefault((name, held.generation), machine.now().boottime_ms)
            for process in machine.processes.values():
                view = process.view
                if view.release == held.release.name and view.state == "ready" and view.since.boottime_ms > failed_at:
                    return f"{name} failed with {view.release}, and later {view.process}.{view.slot} of it became ready"
        return ""

    def _comeback(self, world: World) -> str:
        for rollout in world.coordinator.store.rollouts:
            if rollout.kind == "rollback" or rollout.state not in ("rolled_back", "failed", "aborted"):
                continue
            for name, machine in world.machines.items():
                held = machine.state.assignment
                key = (name, rollout.id)
                if key not in self._told_at and (held is None or held.release == rollout.release):
                    continue
                told_at = self._told_at.setdefault(key, world.timeline.now_ms)
                if any(at > told_at and release == rollout.release.name for at, release in machine.launched):
                    return f"{name} launched {rollout.release.name} after {rollout.id} was over there"
        return ""
