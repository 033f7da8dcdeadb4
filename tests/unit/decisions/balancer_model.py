"""A balancer in a few lines: what HAProxy 2.6 does when it is told something, and that it forgets when it reloads."""

from dataclasses import dataclass, field

from msgspec.structs import replace

from agent.decisions import balancer
from agent.decisions.balancer import BalancerState, Looked, Unanswered, Wished
from agent.model.address import Address
from agent.model.balancer import (
    Add,
    BalancerCommand,
    EnableChecks,
    Look,
    Remove,
    Seen,
    SetAddress,
    SetAdmin,
    SetWeight,
    Wanted,
    Wish,
)
from agent.model.units import Instant

PREFIX = "h1:"
DRAIN_MS = 3_000
OLD_MS = 10**6


def seen(name: str, port: int = 8080, *, up: bool = True, sessions: int = 0, weight: int = 100) -> Seen:
    return Seen(
        name=name, host="10.0.0.1", port=port, weight=weight, maintenance=False, draining=False, held=False, up=up,
        checks_off=False, sessions=sessions,
    )  # fmt: skip


def wanted(name: str, port: int = 8080, *, admitted: bool = True, weight: int = 100) -> Wanted:
    return Wanted(name=name, address=Address("10.0.0.1", port), admitted=admitted, weight=weight)


@dataclass
class Balancer:
    """One that does what it is told; `file` is what a new process of it starts with."""

    file: dict[str, Seen] = field(default_factory=dict)
    servers: dict[str, Seen] = field(default_factory=dict)
    process: int = 1
    born_ms: int = -OLD_MS

    def reload(self, now_ms: int) -> None:
        self.servers = dict(self.file)
        self.process += 1
        self.born_ms = now_ms

    def look(self, now_ms: int) -> Look:
        return Look(process=self.process, uptime_ms=now_ms - self.born_ms, servers=tuple(self.servers.values()))

    def takes_users(self) -> dict[str, int]:
        """Port by server, of those that get new ones."""
        return {
            name: one.port
            for name, one in self.servers.items()
            if not (one.maintenance or one.draining or one.held) and one.up and one.weight
        }

    def told(self, command: BalancerCommand) -> str:
        """Do it; why not otherwise."""
        name, server = command.server, self.servers.get(command.server)
        if isinstance(command, Add):
            if server is not None:
                return "Already exists a server with the same name in backend."
            new = seen(name, command.address.port, weight=command.weight)
            self.servers[name] = replace(new, maintenance=True, checks_off=True)
            return ""
        if server is None:
            return "No such server."
        match command:
            case SetAdmin(state=state):
                server = replace(server, maintenance=state == "maint", draining=state == "drain")
            case SetWeight(weight=weight):
                server = replace(server, weight=weight)
            case SetAddress(address=address):
                assert server.maintenance, "an address changes under users"
                server = replace(server, host=address.host, port=address.port)
            case EnableChecks():
                server = replace(server, checks_off=False)
            case Remove():
                if not server.maintenance:
                    return "Only servers in maintenance mode can be deleted."
                if server.sessions:
                    return "Server still has connections attached to it, cannot remove it."
                del self.servers[name]
                return ""
        self.servers[name] = server
        return ""


class Story:
    """A balancer, and who tells it what to do: time goes on by looks."""

    def __init__(self, *servers: Seen, file: tuple[Seen, ...] = ()) -> None:
        self.balancer = Balancer(
            file={one.name: one for one in file}, servers={one.name: one for one in (*file, *servers)}
        )
        self.state = BalancerState()
        self.now_ms = 0
        self.refused: dict[str, str] = {}
        self.said: list[BalancerCommand] = []
        self.pause_ms = 0

    def now(self) -> Instant:
        return Instant("boot", self.now_ms, self.now_ms)

    def wish(self, *servers: Wanted, drain_ms: int = DRAIN_MS) -> None:
        event = Wished(Wish(servers=servers, drain_ms=drain_ms))
        self.state = balancer.step(self.state, event, PREFIX, self.now()).state

    def silent(self, reason: str = "connection refused") -> None:
        self.state = balancer.step(self.state, Unanswered(reason), PREFIX, self.now()).state

    def look(self) -> list[BalancerCommand]:
        """One turn: look, decide, say it, and let the pause go by."""
        event = Looked(look=self.balancer.look(self.now_ms), refused=self.refused)
        decision = balancer.step(self.state, event, PREFIX, self.now())
        self.state, self.refused = decision.state, {}
        said: list[BalancerCommand] = []
        for command in decision.commands:
            if command.server not in self.refused:
                said.append(command)
                if reason := self.balancer.told(command):
                    self.refused[command.server] = reason
        self.pause_ms = decision.look_again_ms
        self.now_ms += decision.look_again_ms
        self.said += said
        return said

    def looks(self, times: int) -> None:
        for _ in range(times):
            self.look()

    def standing(self, name: str) -> str:
        return self.state.standings[name].state

    def sessions(self, name: str, sessions: int) -> None:
        self.balancer.servers[name] = replace(self.balancer.servers[name], sessions=sessions)
