"""A fleet, its coordinator and the network between them, around the same pure functions as production runs.

Everything follows from one seed. Scenarios call what befalls it; checkers look at the coordinator and the machines.
"""

import random

from msgspec.structs import replace

from agent.decisions.rollout.state import Reported
from agent.model.assignment import Assignment
from agent.model.environment import EnvironmentSettings
from agent.model.ids import HostName, ProcessName, ReleaseName
from agent.model.process import (
    AppSpec,
    CrashLoop,
    HttpCheck,
    Probe,
    Probes,
    ProcessType,
    ReleaseCommand,
    RestartPolicy,
    StopPolicy,
)
from agent.model.release import Order
from agent.wire.messages import Assign, Report, decode_from_agent
from agent.wire.session import CoordinatorSide
from tests.simulation.clock import Timeline
from tests.simulation.coordinator import APP, Coordinator, ref
from tests.simulation.machine import Machine
from tests.simulation.network import Connection
from tests.simulation.process import GOOD, Behaviour

WEB, WORKER, CLOCK = ProcessName("web"), ProcessName("worker"), ProcessName("clock")
_STOP = StopPolicy(linger_ms=1_500, grace_ms=2_000)
_RESTART = RestartPolicy(crash_loop=CrashLoop(restarts=3))
GAPLESS = AppSpec(
    app=APP,
    release=ReleaseCommand(command="bin/migrate"),
    processes=(
        ProcessType(
            name=WEB,
            command="bin/web",
            count=2,
            listen=("0.0.0.0:8080",),
            stop=_STOP,
            restart=_RESTART,
            probes=Probes(readiness=Probe(check=HttpCheck(path="/readyz"), failures=1)),
        ),
        ProcessType(name=WORKER, command="bin/worker", after=(WEB,), stop=_STOP, restart=_RESTART),
    ),
)
WITH_CLOCK = replace(
    GAPLESS,
    processes=(
        *GAPLESS.processes,
        ProcessType(name=CLOCK, command="bin/clock", swap="stop-first", after=(WEB,), stop=_STOP, restart=_RESTART),
    ),
)


class World:
    """`behaviours` says what is wrong with a release on a host; what is not named there is good."""

    def __init__(
        self, seed: int, *, hosts: int = 3, settings: EnvironmentSettings | None = None, spec: AppSpec = WITH_CLOCK
    ) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self.timeline = Timeline()
        self.spec = spec
        self.specs: dict[ReleaseName, AppSpec] = {}
        """Releases that declare other process types than `spec`."""
        self.behaviours: dict[tuple[HostName, ReleaseName], Behaviour] = {}
        self.machines: dict[HostName, Machine] = {}
        self.cut: set[HostName] = set()
        self.happened: list[tuple[int, str]] = []
        """What befell it, for a person who replays a seed."""
        self._connections: dict[HostName, tuple[Connection, CoordinatorSide]] = {}
        names = tuple(HostName(f"h{number}") for number in range(1, hosts + 1))
        self.coordinator = Coordinator(
            self.timeline,
            settings=settings or EnvironmentSettings(),
            spec_of=self.spec_of,
            members=names,
            send=self._send,
            die=lambda: self.kill_coordinator(restart_ms=self.rng.randint(50, 3_000)),
        )
        self._joined = hosts
        for name in names:
            self._add(name)

    def spec_of(self, release: ReleaseName) -> AppSpec:
        return self.specs.get(release, self.spec)

    def behaviour(self, host: HostName, release: ReleaseName) -> Behaviour:
        return self.behaviours.get((host, release), GOOD)

    def note(self, what: str) -> None:
        self.happened.append((self.timeline.now_ms, what))

    # What befalls it

    def start_coordinator(self) -> None:
        if not self.coordinator.up:
            self.coordinator.start()

    def kill_coordinator(self, *, restart_ms: int) -> None:
        """`kill -9`: what was not committed is gone, and with it every connection."""
        self.coordinator.kill()
        for name in list(self._connections):
            self.hang_up(name)
        self.timeline.after(restart_ms, self.start_coordinator)

    def kill_agent(self, name: HostName, *, adopts: bool) -> None:
        self.hang_up(name)
        self.machines[name].kill_agent(adopts=adopts)

    def lose_power(self, name: HostName) -> None:
        self.hang_up(name)
        self.machines[name].lose_power()

    def part(self, name: HostName, for_ms: int) -> None:
        """Nothing reaches the host, nor does it reach anybody."""
        self.cut.add(name)
        self.hang_up(name)
        self.timeline.after(for_ms, lambda: self.cut.discard(name))

    def haunt(self, name: HostName) -> None:
        """A coordinator that was replaced long ago speaks to a host, with an assignment of its own epoch."""
        machine, held = self.machines[name], self.coordinator.store.assignments.get(name)
        past = self.coordinator.store.epoch - 1
        if held is None or past < 1 or not machine.welcomed(past):
            return
        stale = replace(held, epoch=past, generation=held.generation + 1)
        Connection(self.timeline, self.rng).carry("down", Assign(assignment=stale), machine.receive)

    def join(self) -> None:
        """A host that was never here before joins the environment."""
        if self.coordinator.up:
            self._joined += 1
            name = HostName(f"h{self._joined}")
            self.coordinator.change_members((*self.coordinator.store.members, name))
            self._add(name)

    def leave(self, name: HostName) -> None:
        """The host is taken out of the environment, and switched off."""
        if self.coordinator.up:
            self.coordinator.change_members(tuple(host for host in self.coordinator.store.members if host != name))
            self.cut.add(name)
            self.hang_up(name)
            gone = self.machines.pop(name)
            gone.die = lambda: gone.kill_agent(adopts=False)
            gone.lose_power()

    # The link

    def _add(self, name: HostName) -> None:
        machine = self.machines[name] = Machine(
            name,
            self.timeline,
            random.Random(self.rng.random()),  # noqa: S311
            spec_of=self.spec_of,
            behaviour=self.behaviour,
            read_order=self._read_order,
        )
        machine.die = lambda: self.kill_agent(name, adopts=False)
        self._dial(name)

    def _read_order(self, envelope: str) -> Order:
        return self.coordinator.store.orders[envelope]

    def _dial(self, name: HostName) -> None:
        """An agent tries to connect, again and again as long as it is not connected."""
        machine = self.machines.get(name)
        if machine is None or name in self._connections:
            return
        if not self.coordinator.up or name in self.cut:
            self._redial(name)
            return
        connection, life = Connection(self.timeline, self.rng), self.coordinator.life
        self._connections[name] = (connection, CoordinatorSide())
        machine.send = lambda report: connection.carry(
            "up", report, lambda data: self._receive(name, connection, life, data)
        )
        if machine.welcomed(self.coordinator.store.epoch):
            self.coordinator.connect(name)
        else:
            self.hang_up(name)

    def _redial(self, name: HostName) -> None:
        self.timeline.after(self.rng.randint(100, 1_000), lambda: self._dial(name))

    def hang_up(self, name: HostName) -> None:
        held = self._connections.pop(name, None)
        if held is None:
            return
        held[0].open = False
        self.machines[name].send = None
        self.coordinator.disconnect(name)
        self._redial(name)

    def _send(self, name: HostName, assignment: Assignment) -> None:
        connection, side = self._connections[name]
        side, due = side.assign(assignment).send_next()
        self._connections[name] = (connection, side)
        machine = self.machines[name]
        life = machine.life

        def receive(data: bytes) -> None:
            if machine.life == life:
                machine.receive(data)

        if due is not None:
            connection.carry("down", Assign(assignment=due), receive)

    def _receive(self, name: HostName, connection: Connection, life: int, data: bytes) -> None:
        """A report; one of a connection that is over, or of an earlier life, has nobody to take it."""
        held = self._connections.get(name)
        if held is None or held[0] is not connection or life != self.coordinator.life:
            return
        frame = decode_from_agent(data)
        side = held[1].reported(frame.report) if isinstance(frame, Report) else None
        if side is None or not isinstance(frame, Report):
            return
        self._connections[name] = (connection, side)
        for app in frame.report.apps:
            self.coordinator.step(Reported(host=name, report=app))


__all__ = ["CLOCK", "GAPLESS", "WEB", "WITH_CLOCK", "WORKER", "World", "ref"]
