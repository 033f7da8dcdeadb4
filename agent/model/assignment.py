"""What the coordinator wants one host to run for one app and environment, and what the host says of it.

Both directions are levels, not edges: an assignment is the whole wish, a report the whole truth. Receiving one twice,
or only the last of several, changes nothing. Assignments are ordered by (epoch, generation): a host acts on a newer one
only.
"""

from typing import Final, Literal

from msgspec import Struct

from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName, RolloutId
from agent.model.units import Milliseconds

HostState = Literal["waiting", "fetching", "swapping", "settling", "done", "failed", "unreachable"]
InstanceState = Literal["starting", "ready", "unready", "draining", "stopped", "backoff", "exec_failed"]
AdminState = Literal["running", "succeeded", "failed"]


class ReleaseRef(Struct, frozen=True, kw_only=True):
    """A release by name and by the digest of its signed payload: a name alone proves nothing."""

    name: ReleaseName
    digest: Digest


class AdminRun(Struct, frozen=True, kw_only=True):
    """The release command, wanted once for this rollout. The host remembers that it began, under the rollout's id."""

    rollout: RolloutId
    release: ReleaseRef


class Overrides(Struct, frozen=True, kw_only=True):
    """What an environment sets over what the release says of itself, as one host is given it."""

    counts: dict[ProcessName, int] = {}
    listen: dict[ProcessName, tuple[str, ...]] = {}
    linger_ms: Milliseconds | None = None


class Assignment(Struct, frozen=True, kw_only=True):
    app: AppName
    environment: EnvironmentName
    epoch: int
    generation: int
    release: ReleaseRef | None
    """What is to run; None: nothing."""
    order: str
    """The DSSE envelope of the order that allows `release`: the host verifies it by itself."""
    prepare: tuple[ReleaseRef, ...] = ()
    """Releases that are to lie unpacked and verified on the host, the rollback target among them."""
    admin: AdminRun | None = None
    counts: dict[ProcessName, int] = {}
    """Instances per process type, where the environment overrides the app's own count."""
    listen: dict[ProcessName, tuple[str, ...]] = {}
    min_ready_ms: Milliseconds
    deadline_ms: Milliseconds
    """For the host to become ready, armed anew by each instance that does."""
    linger_ms: Milliseconds | None = None
    environment_key: str | None = None
    """The environment's age identity, encrypted to this host's own recipient."""

    @property
    def overrides(self) -> Overrides:
        return Overrides(counts=self.counts, listen=self.listen, linger_ms=self.linger_ms)


SLOW_START_MS: Final = 30_000
"""An instance that takes longer to become ready is not as disposable as it is to be: every swap waits for it."""


class InstanceReport(Struct, frozen=True, kw_only=True):
    process: ProcessName
    slot: int
    release: ReleaseName
    state: InstanceState
    pid: int | None
    since_ms: Milliseconds
    """Wall clock of the host when the instance entered `state`."""
    restarts: int
    start_ms: Milliseconds | None = None
    """From the launch of its present process until it was ready first."""
    detail: str = ""
    """Why it is not ready, in words for a person."""

    @property
    def name(self) -> str:
        return f"{self.process}.{self.slot}"


class PreparedReport(Struct, frozen=True, kw_only=True):
    release: ReleaseRef
    failure: str = ""
    """Empty: it lies there, verified."""


class AdminReport(Struct, frozen=True, kw_only=True):
    rollout: RolloutId
    state: AdminState
    exit_code: int | None = None
    output: str = ""
    """The last lines that the command wrote, bounded."""


class AppReport(Struct, frozen=True, kw_only=True):
    """One app and environment on one host, whole."""

    app: AppName
    environment: EnvironmentName
    generation: int
    release: ReleaseName | None
    state: HostState
    reason: str = ""
    prepared: tuple[PreparedReport, ...] = ()
    admin: AdminReport | None = None
    instances: tuple[InstanceReport, ...] = ()
    aside: str = ""
    """Why the host takes part in no rollout of this app: a person `pinned` its release, or `drained` the host."""


class HostReport(Struct, frozen=True, kw_only=True):
    host: HostName
    boot_id: str
    sequence: int
    """Grows within one connection; an older one is dropped."""
    apps: tuple[AppReport, ...] = ()
