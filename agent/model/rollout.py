"""A rollout: the whole fleet of one app and environment going from one release to another, and how far it is."""

from typing import Final, Literal

from msgspec import Struct

from agent.model.assignment import AdminState, HostState, Overrides, ReleaseRef
from agent.model.ids import AppName, EnvironmentName, HostName, RolloutId
from agent.model.release import OrderKind
from agent.model.units import Milliseconds

RolloutState = Literal[
    "planned",
    "preflight",
    "migrating",
    "running",
    "paused",
    "gate",
    "rolling_back",
    "done",
    "rolled_back",
    "failed",
    "aborted",
    "superseded",
]
TERMINAL: Final[frozenset[RolloutState]] = frozenset({"done", "rolled_back", "failed", "aborted", "superseded"})
OnFailure = Literal["rollback", "pause"]
Strategy = Literal["rolling"]


class Pace(Struct, frozen=True, kw_only=True):
    """How fast and how carefully, with shares of the fleet already turned into numbers of hosts."""

    batch: int
    max_unavailable: int
    min_ready_ms: Milliseconds
    deadline_ms: Milliseconds
    progress_deadline_ms: Milliseconds
    pause_between_ms: Milliseconds = 0


class HostStep(Struct, frozen=True, kw_only=True):
    """One host in the rollout. `generation` is that of the newest assignment the rollout gave it."""

    host: HostName
    state: HostState = "waiting"
    generation: int = 0
    prepared: bool = False
    """Whether the releases that may run here lie verified on the host."""
    unprepared: str = ""
    """Why they cannot be brought there."""
    moved: bool = False
    """Whether it was told to run the new release: then it must be brought back when the rollout fails."""
    back: bool = False
    """Whether it was told to run stable again."""
    again: bool = False
    """Whether it failed, and is to be told once more because a person resumed the rollout."""
    reachable: bool = True
    since_ms: Milliseconds = 0
    """The rollout's `clock_ms` when `state`, or `reachable`, last changed."""
    away_since_ms: Milliseconds = 0
    """Wall clock since when it is away, for people: nothing is decided by it."""
    before: Overrides | None = None
    """What it ran with when the rollout began: that stays until it moves, and comes back with stable."""
    reason: str = ""
    slow_starts_ms: dict[str, Milliseconds] = {}
    """By name the instances of the new release that took long to become ready, and how long: for people."""
    aside: str = ""
    """Why it takes no part: a person `pinned` a release there, or `drained` the host. It is neither moved nor waited
    for, and gets what the environment runs when it takes part again."""


class Migration(Struct, frozen=True, kw_only=True):
    """The release command of this rollout: on which host, and what is known of it."""

    host: HostName
    state: AdminState = "running"
    exit_code: int | None = None
    output: str = ""


class Rollout(Struct, frozen=True, kw_only=True):
    """Everything that is decided on and stored: kill the coordinator anywhere and go on from here."""

    id: RolloutId
    app: AppName
    environment: EnvironmentName
    kind: OrderKind
    release: ReleaseRef
    previous: ReleaseRef | None
    """Stable when it began: where a failure leads back to. None at the first deploy."""
    order: str
    strategy: Strategy
    pace: Pace
    back_pace: Pace
    on_failure: OnFailure
    needs_migration: bool
    gapless: bool = False
    """Whether every process type is start-first, singletons aside: a host that moves then stays available."""
    state: RolloutState = "planned"
    reason: str = ""
    asked_by: str = ""
    created_ms: Milliseconds = 0
    changed_ms: Milliseconds = 0
    wall_ms: Milliseconds = 0
    """Wall clock at the last step."""
    boot_id: str = ""
    boottime_ms: Milliseconds = 0
    """The boot of the coordinator's machine, and how long it had lasted, at the last step."""
    clock_ms: Milliseconds = 0
    """The rollout's own clock, by which it measures: goes with the boot's, never back, never far ahead at once."""
    progress_ms: Milliseconds = 0
    """`clock_ms` when a host was last done: the progress deadline counts from it."""
    resume_to: RolloutState | None = None
    """The state that a pause interrupted."""
    failed_as: RolloutState | None = None
    """While rolling back: the terminal state it will end in when stable is back (rolled_back or aborted)."""
    next_generation: int = 1
    migration: Migration | None = None
    hosts: tuple[HostStep, ...] = ()

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL
