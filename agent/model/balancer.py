"""What a load balancer is to send users to, what it says of itself, and what it is told: the words of all drivers.

A balancer knows *servers*. The agent of a host names its own `HOST:TYPE` (the kernel's router picks the instance) or
`HOST:TYPE:SLOT` (an instance with a port of its own). No host name has a colon, so `HOST:` says whose a server is, and
nobody touches another host's, nor those that a person has written into the balancer's file under any other name.
"""

from typing import Final, Literal

from msgspec import Struct

from agent.model.address import Address
from agent.model.ids import HostName, ProcessName
from agent.model.units import Milliseconds

WEIGHT_MAX: Final = 256
WEIGHT: Final = 100
"""Of a server that has its whole share, so that a percentage of it is a whole number."""


def server_name(host: HostName, process: ProcessName, slot: int | None = None) -> str:
    """The name of a server: of a whole type on a host, or of one instance of it."""
    return f"{host}:{process}" if slot is None else f"{host}:{process}:{slot}"


def owned_prefix(host: HostName) -> str:
    """What the name of each server of this host begins with, and of no other host's."""
    return f"{host}:"


class Wanted(Struct, frozen=True, kw_only=True):
    """One server as it should be. One that is not admitted gets nothing new, and finishes what it has."""

    name: str
    address: Address
    admitted: bool = True
    weight: int = WEIGHT


class Wish(Struct, frozen=True, kw_only=True):
    """All servers of one host behind one balancer: what it has of this host's beyond them is drained and removed."""

    servers: tuple[Wanted, ...]
    drain_ms: Milliseconds
    """How long sessions of a server that is out may go on before it counts as drained all the same."""


class Seen(Struct, frozen=True, kw_only=True):
    """One server as the balancer has it."""

    name: str
    host: str
    """Its IP address, or whatever else stands there: a name that was not resolved, the path of a socket."""
    port: int
    weight: int
    maintenance: bool
    draining: bool
    """`maintenance` and `draining` are what a person or an agent can set and take back; `held` nobody here can."""
    held: bool
    up: bool
    """Whether its health checks let it have users: what is not checked is up."""
    checks_off: bool
    """Health checks that it was given and that nobody has switched on."""
    sessions: int


class Look(Struct, frozen=True, kw_only=True):
    """All servers of one backend at one moment, by one process of the balancer."""

    process: int
    uptime_ms: Milliseconds
    servers: tuple[Seen, ...]


class Add(Struct, frozen=True, tag=True):
    """A new server, out of use until it is made ready."""

    server: str
    address: Address
    weight: int


class SetAdmin(Struct, frozen=True, tag=True):
    """ready: users; drain: nothing new, checks go on; maint: nothing, its idle connections are closed."""

    server: str
    state: Literal["ready", "drain", "maint"]


class SetWeight(Struct, frozen=True, tag=True):
    server: str
    weight: int


class SetAddress(Struct, frozen=True, tag=True):
    server: str
    address: Address


class EnableChecks(Struct, frozen=True, tag=True):
    server: str


class Remove(Struct, frozen=True, tag=True):
    server: str


BalancerCommand = Add | SetAdmin | SetWeight | SetAddress | EnableChecks | Remove

Reach = Literal["admitted", "admitting", "draining", "drained", "gone", "unknown"]


class Standing(Struct, frozen=True, kw_only=True):
    """How far a balancer is with one server; `detail` says why it is not further, or what a drain left behind.

    admitted: it gets users. drained: it gets none, and has none left or has had its time. gone: nobody wishes it, and
    the balancer does not know it. unknown: nobody can say, so nothing that hangs on it may be done.
    """

    state: Reach
    detail: str = ""
