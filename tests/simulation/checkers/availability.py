"""On each host the number of ready instances that get traffic falls only by a fault, never by a decision."""

from agent.model.ids import HostName
from tests.simulation.machine import Machine
from tests.simulation.world import WEB, World

WANTED = 2


class Availability:
    """What something that failed by itself took away is not asked for again until it is there again."""

    def __init__(self) -> None:
        self._seen: dict[HostName, int] = {}
        self._faults: dict[HostName, int] = {}

    def __call__(self, world: World) -> str:
        for name, machine in world.machines.items():
            held = machine.state.assignment
            if held is None or held.release is None or machine.faults > self._faults.get(name, 0):
                self._faults[name] = machine.faults
                self._seen[name] = 0
            serving, before = _serving(machine), self._seen.get(name, 0)
            if serving < min(before, WANTED):
                return f"{name} serves with {serving} web instances after {before}, and nothing had failed"
            self._seen[name] = max(before, serving)
        return ""


def _serving(machine: Machine) -> int:
    admitted = machine.routes.get(WEB, ())
    return sum(
        slot in admitted and process.view.state == "ready"
        for (name, slot), process in machine.processes.items()
        if name == WEB
    )
