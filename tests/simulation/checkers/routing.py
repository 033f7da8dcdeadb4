"""Connections go to ready instances only, as soon as the host has looked."""

from tests.simulation.world import World


def routing(world: World) -> str:
    for name, machine in world.machines.items():
        for process, admitted in machine.routes.items():
            for slot in admitted:
                view = machine.processes.get((process, slot))
                if view is None or view.state in ("draining", "stopped"):
                    what = view.state if view else "nothing"
                    return f"{name} routes to {process}.{slot}, which is {what}"
    return ""
