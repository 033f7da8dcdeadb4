"""What the swap of one app and environment on one host is decided from: its state, what may happen, what may be done.

The state is stored before the actions are performed. All events are levels: `Observed` is always the whole truth about
the instances, taken by the shell in the moment in which it steps, so losing one or seeing it twice changes nothing.
A release that cannot be fetched because nobody answers is not an event: the shell keeps trying; `Prepared.failure` is
for what no waiting mends (a wrong digest, an unknown release, a full disk).
"""

from msgspec import Struct
from msgspec.structs import replace

from agent.model.assignment import (
    AdminReport,
    Assignment,
    HostState,
    InstanceState,
    Overrides,
    PreparedReport,
    ReleaseRef,
)
from agent.model.ids import ProcessName, ReleaseName
from agent.model.process import AppSpec, ProcessType
from agent.model.release import Order
from agent.model.units import Instant, Milliseconds


class InstanceView(Struct, frozen=True, kw_only=True):
    """One slot's instance as the supervisor sees it now."""

    process: ProcessName
    slot: int
    release: ReleaseName
    state: InstanceState
    since: Instant
    """When it entered `state`."""
    launched: Instant
    pid: int | None = None
    restarts: int = 0
    start_ms: Milliseconds | None = None
    """From the launch of its present process until it was ready first."""
    crash_looping: bool = False
    detail: str = ""
    type: ProcessType | None = None
    """As what it was launched; None: as the assigned release says of its type."""


class Renewal(Struct, frozen=True, kw_only=True):
    """A restart that a person asked for: instances that are replaced by fresh ones of the same release."""

    slots: tuple[tuple[ProcessName, int], ...] = ()
    """Whose instances are still to be replaced; a slot leaves when its instance is gone, before another takes it."""
    asked: Instant
    armed: Instant
    """When it began, or last came forward: its deadline counts from here."""
    failure: str = ""
    """Why it was given up; what it had not replaced yet was kept."""


class Halt(Struct, frozen=True, kw_only=True):
    """A place whose instance a person has stopped: nothing takes it until it is asked for again."""

    process: ProcessName
    slot: int
    since: Instant


class Pin(Struct, frozen=True, kw_only=True):
    """The release to which a person on the host went back: it stays, whatever is assigned, until it is unpinned."""

    release: ReleaseRef
    overrides: Overrides = Overrides()
    """Counts and addresses as they were: those of an assignment that does not count do not count either."""
    since: Instant


class Lease(Struct, frozen=True, kw_only=True):
    """What this host knows of the lease of one of its singletons; without any word of it, it has not been asked for."""

    process: ProcessName
    until: Instant | None = None
    """By then nothing of it lives here; None: this host does not have it."""
    holder: str = ""
    """Which other host has it."""
    why: str = ""
    """Why nobody is known to have it, in words for a person."""


class Scaling(Struct, frozen=True, kw_only=True):
    """New counts of what runs already: of which types, and since when."""

    types: tuple[ProcessName, ...]
    asked: Instant


class SwapState(Struct, frozen=True, kw_only=True):
    """Stored per app and environment on the host, as JSON, before anything is done about it."""

    assignment: Assignment | None = None
    order: Order | None = None
    """The verified payload of `assignment.order`."""
    sequence: int = 0
    """The highest order ever accepted here."""
    spec: AppSpec | None = None
    """Process types of the assigned release; None until it lies verified on the host."""
    phase: HostState = "waiting"
    reason: str = ""
    armed: Instant | None = None
    """When the deadline was last armed: the assignment's arrival, or the last instance that became ready."""
    done_instances: int = 0
    """How many new instances were ready when the deadline was last armed."""
    all_ready_since: Instant | None = None
    prepared: tuple[PreparedReport, ...] = ()
    admin: AdminReport | None = None
    instances: tuple[InstanceView, ...] = ()
    draining: bool = False
    """The host itself is going away or drained: everything is to stop, nothing to start. At its start an agent sets it
    anew, from the host's mark."""
    renewal: Renewal | None = None
    """The last restart that was asked for, over or not."""
    halts: tuple[Halt, ...] = ()
    pin: Pin | None = None
    leases: tuple[Lease, ...] = ()
    """At its start an agent sets them anew, from what guards have."""
    shares: dict[ProcessName, int] = {}
    """How many of each type with a total this host is to run, as a coordinator last said."""
    scaling: Scaling | None = None
    """Counts that were changed over what ran already, until so many run."""


def durable(state: SwapState) -> SwapState:
    """The part that is worth a write to disk: what the supervisor sees is seen again after a restart."""
    return replace(state, instances=(), leases=())


# Events


class Assigned(Struct, frozen=True, kw_only=True):
    assignment: Assignment
    order: Order | None
    """Verified by the shell; None only when the assignment runs nothing."""


class Prepared(Struct, frozen=True, kw_only=True):
    """A release lies unpacked and verified on the host, or could not be brought there."""

    release: ReleaseRef
    spec: AppSpec | None = None
    failure: str = ""


class AdminEnded(Struct, frozen=True, kw_only=True):
    report: AdminReport


class Observed(Struct, frozen=True, kw_only=True):
    instances: tuple[InstanceView, ...]


class Leased(Struct, frozen=True, kw_only=True):
    leases: tuple[Lease, ...]
    shares: dict[ProcessName, int] = {}


class Tick(Struct, frozen=True):
    """Time has passed: a wake-up that was asked for, or any other reason to look again."""


class Restarted(Struct, frozen=True):
    """The agent has started anew over this stored state: perform again what was in hand."""


class Drain(Struct, frozen=True):
    """The host is being shut down or drained."""


class Undrain(Struct, frozen=True):
    """The host is to run what it is assigned again."""


class RestartAsked(Struct, frozen=True, kw_only=True):
    """A person wants fresh instances, and those back that were stopped; None: of every type, in every slot."""

    process: ProcessName | None = None
    slot: int | None = None


class StopAsked(Struct, frozen=True, kw_only=True):
    """A person wants instances gone, and to stay gone."""

    process: ProcessName | None = None
    slot: int | None = None


class PinAsked(Struct, frozen=True, kw_only=True):
    """A person goes back to a release, which the shell has verified on the host, and stays with it."""

    release: ReleaseRef
    spec: AppSpec


class UnpinAsked(Struct, frozen=True):
    """What is assigned counts again."""


ByHand = RestartAsked | StopAsked | PinAsked | UnpinAsked
SwapEvent = Assigned | Prepared | AdminEnded | Observed | Leased | Tick | Restarted | Drain | Undrain | ByHand


# Actions, performed in the order in which they are listed


class Prepare(Struct, frozen=True, kw_only=True):
    """Fetch, verify and unpack a release, then answer `Prepared`. Already there: answer at once."""

    release: ReleaseRef


class RunAdmin(Struct, frozen=True, kw_only=True):
    """Run the release command and answer `AdminEnded`. The state says "running" already: it is never begun twice."""

    rollout: str
    release: ReleaseRef


class Route(Struct, frozen=True, kw_only=True):
    """New connections of a listening type go to `admitted`; while that is empty they wait on the slots of `waiting`."""

    process: ProcessName
    admitted: tuple[int, ...]
    waiting: tuple[int, ...] = ()


class Launch(Struct, frozen=True, kw_only=True):
    process: ProcessName
    slot: int
    release: ReleaseRef


class Stop(Struct, frozen=True, kw_only=True):
    """Drain the instance: notice, linger, signal, grace, kill. A `Route` without it was performed before."""

    process: ProcessName
    slot: int
    linger_ms: Milliseconds | None = None


class Forget(Struct, frozen=True, kw_only=True):
    """The instance has stopped: its slot is free."""

    process: ProcessName
    slot: int


class Wake(Struct, frozen=True, kw_only=True):
    """Send `Tick` at that moment at the latest."""

    at: Instant


SwapAction = Prepare | RunAdmin | Route | Launch | Stop | Forget | Wake


class SwapDecision(Struct, frozen=True, kw_only=True):
    state: SwapState
    actions: tuple[SwapAction, ...] = ()
    refused: str = ""
    """Why an assignment (stale, or not what its order allows) or a person's wish was not taken; nothing has changed."""
