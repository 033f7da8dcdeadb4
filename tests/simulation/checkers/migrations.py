"""The release command of one rollout begins at most once, in the whole fleet."""

from collections import Counter

from tests.simulation.world import World


def migrations(world: World) -> str:
    begun = Counter(rollout for machine in world.machines.values() for rollout in machine.migrated)
    return next(
        (f"the release command of {rollout} began {times} times" for rollout, times in begun.items() if times > 1), ""
    )
