"""On each host the number of ready instances that get traffic falls only by a fault, never by a decision."""

from collections import Counter

from tests.simulation.machine import Machine
from tests.simulation.world import SPEC, World


class Availability:
    """Call after each moment. A fault (a process, agent or power that died) lowers what is asked for from then on."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.faults: Counter[str] = Counter()

    def __call__(self, world: World) -> str:
        for name, machine in world.machines.items():
            held = machine.state.assignment
            serving = self.serving(machine)
            wanted = SPEC.processes[0].count
            if held is None or held.release is None or len(machine.faults) > self.faults[name]:
                self.faults[name] = len(machine.faults)
                self.seen[name] = 0
            if serving < min(self.seen.get(name, 0), wanted):
                return f"{name} serves with {serving} web instances after {self.seen[name]}, and nothing had died"
            self.seen[name] = max(self.seen.get(name, 0), serving)
        return ""

    def serving(self, machine: Machine) -> int:
        admitted = machine.routes.get("web", ())
        ready = {
            slot for (process, slot), view in machine.processes.items() if process == "web" and view.state == "ready"
        }
        return len(ready & set(admitted))
