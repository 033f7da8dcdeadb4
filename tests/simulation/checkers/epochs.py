"""No host holds an assignment of an older epoch than it has seen, nor goes back to an older generation."""

from tests.simulation.world import World


class Epochs:
    def __init__(self) -> None:
        self.seen: dict[str, tuple[int, int]] = {}

    def __call__(self, world: World) -> str:
        for name, machine in world.machines.items():
            held = machine.state.assignment
            age = (held.epoch, held.generation) if held else (0, 0)
            if age[1] < self.seen.get(name, (0, 0))[1] or age[0] < self.seen.get(name, (0, 0))[0]:
                return f"{name} went from assignment {self.seen[name]} back to {age}"
            self.seen[name] = age
        return ""
