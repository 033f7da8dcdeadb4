"""Whether an instance may be started now: a singleton has a lease that lasts and a guard, its own port is free."""

from agent.supervisor.launchable import Launchable
from agent.supervisor.ownport import taken
from agent.supervisor.process import wait_for_room
from agent.supervisor.surroundings import Surroundings


async def why_not(around: Surroundings, given: Launchable) -> str:
    """Why nothing is to be started now, or nothing."""
    if given.type.singleton:
        await wait_for_room(around)  # before its lease is looked at, which may run out meanwhile
    return await around.guards.admit(given.key.lease, given.type) or await taken(given)
