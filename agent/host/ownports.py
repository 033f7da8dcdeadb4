"""The addresses that instances of this host bind themselves: theirs while nobody listens there, too.

A socket of the agent's own keeps its address between two starts; where the instance makes it, nothing but this does.
Rules: of two that overlap the second is refused, whoever of another app or type it is, with who has it; slots of one
type follow each other. Nothing is asked of the kernel here.
"""

from agent.errors import RefusedError
from agent.host.assignments import AppKey
from agent.model.address import Address
from agent.model.ids import ProcessName


class OwnPorts:
    """Of all apps and environments of one host."""

    def __init__(self) -> None:
        self._taken: dict[tuple[AppKey, ProcessName, int], Address] = {}

    def take(self, address: Address, key: AppKey, process: ProcessName, slot: int) -> None:
        """It is of this slot until it is given back. Raises RefusedError."""
        self.refuse(address, key, process)
        self._taken[key, process, slot] = address

    def refuse(self, address: Address, key: AppKey, process: ProcessName) -> None:
        """Raise RefusedError where it is of somebody else than this type."""
        for (others, other, _), taken in self._taken.items():
            if (others, other) != (key, process) and taken.overlaps(address):
                raise RefusedError(
                    f"cannot listen on {address}: {other} of {others.app} {others.environment} binds {taken} itself",
                    "Choose another address: `listen` in rollway.toml, or [listen] in the environment's settings.",
                )

    def give_back(self, key: AppKey, process: ProcessName, slot: int) -> None:
        self._taken.pop((key, process, slot), None)
