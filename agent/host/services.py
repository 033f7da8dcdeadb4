"""What all actors of a host share: given at construction, so that an actor knows no global thing but the clock."""

from collections.abc import Callable

from msgspec import Struct

from agent.host.assignments import States
from agent.host.keys import HostKey
from agent.host.ownports import OwnPorts
from agent.host.releases import Releases
from agent.linux.fdstore import FdStore, Inherited
from agent.supervisor.supervisor import Supervisor


class Services(Struct, frozen=True, kw_only=True):
    supervisor: Supervisor
    store: FdStore
    inherited: Inherited
    releases: Releases
    states: States
    key: HostKey
    own_ports: OwnPorts
    address: str | None
    """The host's own address, which `0.0.0.0` in `listen` means; None leaves it."""
    on_state: Callable[[], None]
    """Called, without waiting, after a new state was stored."""
