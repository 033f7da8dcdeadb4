"""A stop-first type of one instance never runs twice on a host, whatever happens."""

from tests.simulation.world import CLOCK, World


def singles(world: World) -> str:
    for name, machine in world.machines.items():
        alive = [one for (kind, _), one in machine.processes.items() if kind == CLOCK and one.view.state != "stopped"]
        if len(alive) > 1:
            return f"{name} runs {len(alive)} clocks: {', '.join(f'{one.release} {one.view.state}' for one in alive)}"
    return ""
