"""How each long-lived role is set up on its machine: the contents of `agent.toml` and `coordinator.toml`.

Paths are absolute. What a file leaves out lies below the role's `state_dir` (`below`), so that one key moves all of it.
"""

from typing import Final, Literal, Self

from msgspec import Struct

from agent.model.ids import EnvironmentName, HostName
from agent.model.units import Milliseconds

AGENT_STATE_DIR: Final = "/var/lib/rollway"
COORDINATOR_STATE_DIR: Final = "/var/lib/rollway-coordinator"


LogsOnFull = Literal["block", "drop"]


class TlsFiles(Struct, frozen=True, kw_only=True):
    """PEM files of mutual TLS: whom to trust, who we are."""

    ca: str
    certificate: str
    key: str

    @classmethod
    def below(cls, state_dir: str) -> Self:
        tls = f"{state_dir}/tls"
        return cls(ca=f"{tls}/ca.pem", certificate=f"{tls}/certificate.pem", key=f"{tls}/key.pem")


class AgentSettings(Struct, frozen=True, kw_only=True):
    """One host's agent."""

    name: HostName
    coordinators: tuple[str, ...]
    """`https://HOST:PORT` each; the agent keeps a link to one of them."""
    labels: dict[str, str] = {}
    environments: tuple[EnvironmentName, ...] = ()
    """Environments that this host serves: none until they are named, so that no host joins production by omission."""
    state_dir: str
    run_dir: str = "/run/rollway"
    address: str | None = None
    """The host's own address, which `0.0.0.0` in `listen` then means; None leaves `0.0.0.0` as it is."""
    http_listen: tuple[str, ...] = ("127.0.0.1:7071",)
    """Health endpoints, and readiness of apps for external balancers; empty is none."""
    agent_check: tuple[str, ...] = ()
    """Where HAProxies ask whether an app of this host is to get users (their `agent-check`)."""
    tls: TlsFiles
    age_key: str
    """File of the host's own age identity: what the coordinator encrypts an environment's key to."""
    logs_on_full: LogsOnFull = "block"
    """While nobody takes the agent's output, instances wait in their writes, or their lines are dropped and counted."""
    ring_bytes: int = 256 * 1024
    """Last log records kept per instance."""
    launches: int | None = None
    """So many instances are started at once; None: twice as many as the host has cores."""

    @classmethod
    def below(cls, name: HostName, coordinators: tuple[str, ...], state_dir: str = AGENT_STATE_DIR) -> Self:
        """An agent by its defaults, with all its state below `state_dir`."""
        tls, age_key = TlsFiles.below(state_dir), f"{state_dir}/age.key"
        return cls(name=name, coordinators=coordinators, state_dir=state_dir, tls=tls, age_key=age_key)


class CoordinatorSettings(Struct, frozen=True, kw_only=True):
    """One coordinator."""

    listen: tuple[str, ...] = ("0.0.0.0:7070",)
    state_dir: str
    database: str
    """`sqlite:///` and an absolute path."""
    store: str
    """`file://` and an absolute path: where builds lie."""
    tls: TlsFiles
    advertise: tuple[str, ...] = ()
    """`https://HOST:PORT` each, by which agents and operators reach it; empty: what `listen` and this machine say."""
    lease_ms: Milliseconds = 30_000
    """How long a singleton runs on while its host hears nothing of a coordinator."""

    @classmethod
    def below(cls, state_dir: str = COORDINATOR_STATE_DIR) -> Self:
        """A coordinator by its defaults, with all its state below `state_dir`."""
        database, store = f"sqlite:///{state_dir}/coordinator.db", f"file://{state_dir}/store"
        return cls(state_dir=state_dir, database=database, store=store, tls=TlsFiles.below(state_dir))
