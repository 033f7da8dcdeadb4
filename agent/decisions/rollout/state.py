"""What a rollout is decided from beside `model.rollout.Rollout`: what may happen, and what may be done.

The shell commits the new `Rollout`, and what the actions change in the store, in one transaction, then sends.
"""

from msgspec import Struct

from agent.model.assignment import AdminRun, AppReport, Overrides, ReleaseRef
from agent.model.ids import HostName
from agent.model.rollout import Rollout, RolloutState
from agent.model.units import Milliseconds

# Events


class Begin(Struct, frozen=True, kw_only=True):
    """The rollout was stored as planned, over these hosts; those without a connection are marked unreachable."""


class Reported(Struct, frozen=True, kw_only=True):
    """What a host said of this app and environment, at any time, in any order, perhaps twice."""

    host: HostName
    report: AppReport


class Reachable(Struct, frozen=True, kw_only=True):
    host: HostName
    reachable: bool


class HostsChanged(Struct, frozen=True, kw_only=True):
    """Hosts that belong to the environment now: others have left, new ones have joined."""

    hosts: tuple[HostName, ...]


class Tick(Struct, frozen=True):
    """Time has passed."""


class Restarted(Struct, frozen=True):
    """The coordinator has started anew over the stored rollout: no host is connected yet.

    One event for all hosts: told of one after the other, the first step would still believe in the others.
    """


class Abort(Struct, frozen=True, kw_only=True):
    by: str


class Pause(Struct, frozen=True, kw_only=True):
    by: str


class Resume(Struct, frozen=True, kw_only=True):
    by: str


RolloutEvent = Begin | Reported | Reachable | HostsChanged | Tick | Restarted | Abort | Pause | Resume


# Actions


class Give(Struct, frozen=True, kw_only=True):
    """Change one host's assignment: stored with the rollout, then sent whenever the host can be reached.

    The shell completes it with what is not decided here: epoch, order, the environment's key.
    """

    host: HostName
    generation: int
    release: ReleaseRef | None
    prepare: tuple[ReleaseRef, ...] = ()
    admin: AdminRun | None = None
    overrides: Overrides | None = None
    """What `release` runs with; None: with what the environment's settings say now."""


class Ended(Struct, frozen=True, kw_only=True):
    """The rollout is terminal. `runs` is what the environment runs from now on; hosts that return get that."""

    state: RolloutState
    runs: ReleaseRef | None
    healthy: bool
    """Whether `runs` was healthy to the end of this rollout: then it is stable."""


class Wake(Struct, frozen=True, kw_only=True):
    """Send `Tick` after so long at the latest."""

    after_ms: Milliseconds


RolloutAction = Give | Ended | Wake


class RolloutDecision(Struct, frozen=True, kw_only=True):
    state: Rollout
    actions: tuple[RolloutAction, ...] = ()
    changed: bool = False
    """Whether there is something to commit: more than the rollout's clock has changed."""
    refused: str = ""
    """Why an operator's word did nothing: the rollout is in a state that does not know it."""
