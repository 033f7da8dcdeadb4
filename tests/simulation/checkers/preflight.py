"""A swap leaves its preflight only when the release lies on every host that can be reached."""

from agent.model.ids import RolloutId
from agent.model.rollout import RolloutState
from tests.simulation.world import World


class Preflight:
    def __init__(self) -> None:
        self._before: tuple[RolloutId | None, RolloutState | None] = (None, None)

    def __call__(self, world: World) -> str:
        rollout = world.coordinator.rollout
        before = self._before
        self._before = (rollout.id, rollout.state) if rollout else (None, None)
        if rollout is None or before != (rollout.id, "preflight") or rollout.state in ("preflight", "rolling_back"):
            return ""
        for step in rollout.hosts:
            if step.reachable and rollout.release.name not in world.machines[step.host].fetched:
                return f"hosts move before {rollout.release.name} lies on {step.host}"
        return ""
