"""The port that an instance binds itself, looked at before each of its starts.

A stranger who has come there while nobody listened would answer the instance's probes and its users, and the instance
end again and again at an address in use: it is not started, and it is said who is there.
"""

from anyio import to_thread

from agent.linux.sockets import port_in_use
from agent.model.address import Address, parse_address
from agent.supervisor.launchable import Launchable


async def taken(launchable: Launchable) -> str:
    """Why it cannot have its port, or nothing."""
    if launchable.type.bind != "port" or not launchable.addresses:
        return ""
    return await to_thread.run_sync(_taken, parse_address(launchable.addresses[0]))


def _taken(address: Address) -> str:
    try:
        found = port_in_use(address)
    except OSError as error:
        return f"cannot listen on {address}: {error.strerror}"
    return str(found) if found is not None else ""
