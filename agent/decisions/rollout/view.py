"""A rollout as people see it: each host in a word, what it was told to run last, and for whom it waits.

Rules: nothing is decided from this. A host that was not told to move is shown by whether the release lies ready there,
not by how well it runs what it ran before.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from agent.decisions.rollout import hosts
from agent.decisions.rollout.hosts import AT_REST
from agent.model.assignment import ReleaseRef
from agent.model.ids import HostName
from agent.model.rollout import HostStep, Rollout
from agent.model.units import Milliseconds


def word(rollout: Rollout, step: HostStep) -> str:
    """Its state, or `unreachable`, `pinned`, `drained`: then it stands outside of the rollout."""
    if not step.reachable:
        return "unreachable"
    if step.aside:
        return step.aside
    if step.moved:
        return step.state
    if step.unprepared:
        return "failed"
    on_the_way_forward = not rollout.terminal and rollout.state != "rolling_back"
    fetching = rollout.kind == "swap" and step.generation > 0 and not step.prepared and on_the_way_forward
    return "fetching" if fetching else "waiting"


def told(rollout: Rollout, step: HostStep) -> ReleaseRef | None:
    """What this rollout last told the host to run: nothing as long as it told nothing."""
    if step.generation == 0:
        return None
    return rollout.release if step.moved and not step.back else rollout.previous


def reason(rollout: Rollout, step: HostStep) -> str:
    """Why the host is as it is, where there is something to say."""
    if step.reachable and step.aside:
        return f"{step.aside} by a person on the host; takes no part until that is taken back there"
    if step.moved and step.reachable:
        return step.reason
    if not step.reachable:
        return _away(rollout, [step])
    return f"cannot prepare {step.unprepared}" if step.unprepared else ""


def why(rollout: Rollout) -> str:
    """The reason of the rollout's state; without one, for which hosts it waits that are away."""
    waited_for = [] if rollout.reason else _waited_for(rollout)
    if not waited_for:
        return rollout.reason
    return f"waiting for {', '.join(step.host for step in waited_for)}: {_away(rollout, waited_for)}"


def progress(rollout: Rollout) -> tuple[int, int]:
    """How many hosts have arrived, and of how many: on the way back, of those that were moved."""
    if rollout.state == "rolling_back":
        moved = [step for step in rollout.hosts if step.moved]
        return sum(step.back and step.state == "done" for step in moved), len(moved)
    return sum(step.moved and step.state == "done" and not step.aside for step in rollout.hosts), len(rollout.hosts)


def steady(ready: int, wanted: int, unknown: Sequence[HostName]) -> Literal["stable", "degraded", "unknown"]:
    """An environment in which nothing is under way: what is known to lack counts first, then what is not known."""
    if ready < wanted:
        return "degraded"
    return "unknown" if unknown else "stable"


def _waited_for(rollout: Rollout) -> list[HostStep]:
    """Hosts that are away while nothing else goes on."""
    away = [step for step in rollout.hosts if not step.reachable and not hosts.lost(rollout, step)]
    if rollout.state == "preflight":
        return [step for step in away if not step.prepared]
    if rollout.state != "running":
        return []
    busy = any(hosts.takes_part(step) and step.moved and step.state not in AT_REST for step in rollout.hosts)
    return [] if busy else away


def _away(rollout: Rollout, steps: list[HostStep]) -> str:
    known = [step.away_since_ms for step in steps if step.away_since_ms]
    since = f"away since {_moment(rollout, min(known))}" if known else "away"
    if rollout.terminal or (rollout.state == "rolling_back" and not any(step.moved for step in steps)):
        return since
    if all(hosts.lost(rollout, step) for step in steps):
        return f"{since}; left behind"
    until_ms = max(step.since_ms for step in steps) + hosts.patience_ms(rollout.pace)
    if rollout.state != "paused":
        until_ms = min(until_ms, rollout.progress_ms + rollout.pace.progress_deadline_ms)
    return f"{since}; waited for until {_moment(rollout, rollout.wall_ms + until_ms - rollout.clock_ms)}"


def _moment(rollout: Rollout, moment_ms: Milliseconds) -> str:
    """A moment of the wall clock; with its date unless that is the day of the rollout's last step."""
    moment, last = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (moment_ms, rollout.wall_ms))
    return moment.strftime("%H:%M:%SZ" if moment.date() == last.date() else "%Y-%m-%d %H:%M:%SZ")
