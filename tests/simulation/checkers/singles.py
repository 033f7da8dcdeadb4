"""A stop-first type of one instance never runs twice on a host, whatever happens."""

from tests.simulation.world import World


def singles(world: World) -> str:
    for name, machine in world.machines.items():
        running = [view for (process, _), view in machine.processes.items() if process == "clock"]
        alive = [view for view in running if view.state != "stopped"]
        if len(alive) > 1:
            return f"{name} runs {len(alive)} clocks: {', '.join(f'{view.release} {view.state}' for view in alive)}"
    return ""
