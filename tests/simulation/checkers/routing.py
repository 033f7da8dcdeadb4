"""Connections go to ready instances only, as soon as the host has looked."""

from tests.simulation.world import World

LOOKS_WITHIN_MS = 20


def routing(world: World) -> str:
    for name, machine in world.machines.items():
        for process, admitted in machine.routes.items():
            for slot in admitted:
                held = machine.processes.get((process, slot))
                if held is None:
                    return f"{name} routes to {process}.{slot}, where nothing runs"
                view = held.view
                unseen_ms = machine.now().boottime_ms - view.since.boottime_ms
                if view.state != "ready" and unseen_ms > LOOKS_WITHIN_MS:
                    return f"{name} routes to {process}.{slot}, which has been {view.state} for {unseen_ms} ms"
    return ""
