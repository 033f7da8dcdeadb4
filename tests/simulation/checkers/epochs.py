"""No host goes back from an assignment to an older one, of an older epoch or generation."""

from agent.model.ids import HostName
from tests.simulation.world import World


class Epochs:
    def __init__(self) -> None:
        self._seen: dict[HostName, tuple[int, int]] = {}

    def __call__(self, world: World) -> str:
        for name, machine in world.machines.items():
            held = machine.state.assignment
            age = (held.epoch, held.generation) if held else (0, 0)
            seen = self._seen.get(name, (0, 0))
            if age < seen:
                return f"{name} went from assignment {seen} back to {age}"
            self._seen[name] = age
        return ""
