"""A swap leaves its preflight only when the release lies on every host that can be reached."""

from agent.model.ids import RolloutId
from tests.simulation.world import World


class Preflight:
    """Looks at each rollout in the moment in which it goes on."""

    def __init__(self) -> None:
        self._seen: set[RolloutId] = set()

    def __call__(self, world: World) -> str:
        rollout = world.coordinator.rollout
        if rollout is None or rollout.id in self._seen or rollout.state not in ("migrating", "running"):
            return ""
        self._seen.add(rollout.id)
        for step in rollout.hosts if rollout.kind == "swap" else ():
            if step.reachable and rollout.release.name not in world.machines[step.host].fetched:
                return f"hosts move before {rollout.release.name} lies on {step.host}"
        return ""
