"""The life of one instance in words: what is known of it, what may happen to it, what may be done about it.

An instance is one place in the plan, its process comes and goes; `launch` numbers the processes, so that what is said
of an earlier one is not taken for the present one. Not handled here: traffic; whoever stops an instance has taken it
out of the program before.
"""

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from agent.model.assignment import InstanceState
from agent.model.process import ProbeKind, Probes, RestartPolicy, StopPolicy
from agent.model.units import Instant, Milliseconds

EndingPhase = Literal["linger", "grace", "killing"]
Level = Literal["info", "warning"]
"""Of what is told: a warning is a failure, which somebody may have to look at."""
Condition = Literal["", "ready", "reloading", "stopping"]
"""What a process says of itself; "" until it says anything."""


class Terms(Struct, frozen=True, kw_only=True):
    """Under which policies the instance lives, for all its life."""

    stop: StopPolicy = StopPolicy()
    restart: RestartPolicy = RestartPolicy()
    probes: Probes = Probes()
    """With what stands in for undeclared ones: `probe.effective`."""
    listens: bool = False


class Tally(Struct, frozen=True, kw_only=True):
    """Results of one probe in a row: of the two numbers one is always 0."""

    successes: int = 0
    failures: int = 0


class History(Struct, frozen=True, kw_only=True):
    """Restarts since the instance was last healthy for `reset_after`."""

    attempts: int = 0
    recent_ms: tuple[Milliseconds, ...] = ()
    """Boottimes of those that lie within the crash loop's window."""
    crash_looping: bool = False


class Ending(Struct, frozen=True, kw_only=True):
    """How far the end of the present process has come; at `until` the next phase begins by itself."""

    phase: EndingPhase
    until: Instant
    earliest: Instant
    """Linger may end early, when nothing is left, but not before this."""


class InstanceMachine(Struct, frozen=True, kw_only=True):
    """Everything that is decided from."""

    terms: Terms
    state: InstanceState = "starting"
    since: Instant
    launched: Instant
    """When the present process was started; before the first, when the instance was made."""
    launch: int = 0
    """Number of the newest process; 0 before the first."""
    pid: int | None = None
    launching: bool = False
    """A launch was ordered and has not been answered."""
    restarts: int = 0
    history: History = History()
    retry_at: Instant | None = None
    """When the next launch is due, while no process lives."""
    started: bool = False
    """The startup probe has passed, or there is none."""
    started_at: Instant | None = None
    """When: from then on the initial delays of the other two probes count."""
    ready: bool = False
    """What readiness says; while draining it is only reported."""
    start_ms: Milliseconds | None = None
    """From the launch of the present process until it was ready first."""
    startup: Tally = Tally()
    readiness: Tally = Tally()
    liveness: Tally = Tally()
    condition: Condition = ""
    """What the present process said last."""
    alive: Instant | None = None
    """When it said last that it lives, or was first expected to."""
    extended: Instant | None = None
    """Until when it asked for patience with its start."""
    ending: Ending | None = None
    stop_asked: bool = False
    linger_ms: Milliseconds | None = None
    """The linger that came with the wish to stop, while there was no process yet to drain."""
    detail: str = ""
    """Why it is in its state, as long as it is."""
    last_end: str = ""
    """Why the process before this one came to its end, unasked: as true as the count of restarts."""

    def why(self, said: str) -> str:
        """Why it is as it is, for a person; all being well, why it was restarted, and what the process says itself."""
        if self.detail or self.pid is None:
            return self.detail
        return "; ".join(words for words in (self.last_end and f"restarted: {self.last_end}", said) if words)


# Events


class Start(Struct, frozen=True):
    """The instance is wanted."""


class Adopted(Struct, frozen=True, kw_only=True):
    """A next agent takes the instance up as the state that an earlier one stored; its process may be gone by now."""

    pid: int | None
    """Of the process that there is, or was: None where none was started."""
    signalled: bool = True
    """Whether a stop signal that the stored state speaks of is known to have been sent."""


class Launched(Struct, frozen=True, kw_only=True):
    pid: int


class LaunchFailed(Struct, frozen=True, kw_only=True):
    errno: int
    what: str
    """In words: the file, and what is wrong with it."""
    jitter: float
    """In 0..1, drawn by the shell."""


class LaunchWithheld(Struct, frozen=True):
    """It was not begun: while it waited for its turn a stop was asked for, and that was told first."""


class Exited(Struct, frozen=True, kw_only=True):
    """The main process has ended; neither code nor signal: nobody could tell how, which is not 0."""

    code: int | None
    signal: int | None
    oom: bool = False
    """The kernel has killed a part of its tree for want of memory, with which all of it goes."""
    pid: int | None = None
    """Whose end it is, where the shell can tell: the main process may have become another meanwhile."""
    dumped_core: bool = False
    used: dict[str, int] = {}
    """What is known of what it has used, under the names by which it is told."""
    jitter: float
    """In 0..1, drawn by the shell."""


class Probed(Struct, frozen=True, kw_only=True):
    kind: ProbeKind
    launch: int
    ok: bool
    detail: str = ""
    early: bool = False
    """Asked within less than a period of the question before: it counts in no row of results."""


class Noticed(Struct, frozen=True, kw_only=True):
    """The process said something by sd_notify(3); None: nothing of that. Answered by `DropNotice` in any case."""

    launch: int
    condition: Condition | None = None
    watchdog: Literal["ping", "trigger"] | None = None
    more_ms: Milliseconds | None = None
    """It asks for so much more time from now, for its start or its end."""
    main_pid: int | None = None
    """Which process of the instance is the main one from now on; the shell has seen that it is of the instance."""


class StopAsked(Struct, frozen=True, kw_only=True):
    linger_ms: Milliseconds | None = None
    """Over the stop policy's linger."""


class ConnectionsLeft(Struct, frozen=True, kw_only=True):
    """What would be lost if the process ended now: not yet accepted, established, in the middle of a handshake."""

    queued: int
    established: int
    syn_received: int


class Tick(Struct, frozen=True):
    """Time has passed."""


Event = (
    Start
    | Adopted
    | Launched
    | LaunchFailed
    | LaunchWithheld
    | Exited
    | Probed
    | Noticed
    | StopAsked
    | ConnectionsLeft
    | Tick
)


# Actions, performed in the order in which they are listed


class LaunchNow(Struct, frozen=True, kw_only=True):
    """Start the process, answer `Launched` or `LaunchFailed`. Never ordered while a process lives."""

    launch: int


class StartProbe(Struct, frozen=True, kw_only=True):
    """Probe on the probe's own schedule, one at a time, until `StopProbe` or the process's end; answer `Probed`."""

    kind: ProbeKind
    wait_ms: Milliseconds = 0
    """What is left of the initial delay."""
    spread: bool = False
    """Many begin in this very moment: begin at any moment of the first period."""


class StopProbe(Struct, frozen=True, kw_only=True):
    kind: ProbeKind


class DropNotice(Struct, frozen=True, kw_only=True):
    """What the process of this number said is decided upon, and on record: nobody needs it any more."""

    launch: int


class FollowMain(Struct, frozen=True, kw_only=True):
    """That process is the main one: wait for its end, send it the signals, have a next agent do so."""

    pid: int


class ShowNotice(Struct, frozen=True):
    """Let the drain notice appear."""


class WatchConnections(Struct, frozen=True):
    """Answer `ConnectionsLeft`, at once and again and again, until the process's end."""


class Signal(Struct, frozen=True, kw_only=True):
    """Send it to the main process alone."""

    name: str


class KillTree(Struct, frozen=True):
    """SIGKILL the process and everything that came from it; done when it is gone. Also after the main process left."""


class CloseProcess(Struct, frozen=True):
    """The main process and its tree are gone: end probes and watches, read its output to the end."""


class AcceptLeft(Struct, frozen=True):
    """Nobody will come back soon for what waits on the slot: accept, close, count."""


class Emit(Struct, frozen=True, kw_only=True):
    """Tell the agent's own log."""

    text: str
    fields: dict[str, str | int] = {}
    level: Level = "info"


class Wake(Struct, frozen=True, kw_only=True):
    """Send `Tick` at that moment at the latest; takes the place of the wake of an earlier decision."""

    at: Instant


Action = (
    LaunchNow
    | StartProbe
    | StopProbe
    | DropNotice
    | FollowMain
    | ShowNotice
    | WatchConnections
    | Signal
    | KillTree
    | CloseProcess
    | AcceptLeft
    | Emit
    | Wake
)


class Decision(Struct, frozen=True, kw_only=True):
    state: InstanceMachine
    actions: tuple[Action, ...] = ()


Turn = tuple[InstanceMachine, tuple[Action, ...]]


def entered(state: InstanceMachine, name: InstanceState, now: Instant, detail: str = "") -> InstanceMachine:
    """The state of that name; `since` stays where it was that already."""
    since = state.since if state.state == name else now
    return replace(state, state=name, since=since, detail=detail)


def durable(state: InstanceMachine) -> InstanceMachine:
    """The part that a next agent needs: results of probes are had again, and so are signs of life."""
    return replace(state, startup=Tally(), readiness=Tally(), liveness=Tally(), alive=None)
