"""The release command of a rollout begins at most once in the fleet, and no new process starts before it succeeded."""

from collections import Counter

from tests.simulation.world import World


def migrations(world: World) -> str:
    begun = Counter(rollout for machine in world.machines.values() for rollout in machine.migrated)
    twice = [f"the release command of {rollout} began {times} times" for rollout, times in begun.items() if times > 1]
    if twice:
        return twice[0]
    for rollout in world.coordinator.store.rollouts:
        succeeded = rollout.migration is not None and rollout.migration.state == "succeeded"
        if rollout.needs_migration and not succeeded:
            for name, machine in world.machines.items():
                if any(release == rollout.release.name for _, release in machine.launched):
                    return f"{name} launched {rollout.release.name} before its release command had succeeded"
    return ""
