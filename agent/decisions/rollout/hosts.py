"""The hosts of a rollout: what a report or a lost connection changes, who may be left behind, who may move now."""

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from agent.model.assignment import SLOW_START_MS, AppReport, Overrides
from agent.model.ids import HostName
from agent.model.rollout import HostStep, Pace, Rollout
from agent.model.units import Milliseconds

AWAY_MS_MIN: Final = 30_000
AT_REST: Final = frozenset({"done", "failed"})


def reported(rollout: Rollout, host: HostName, report: AppReport) -> Rollout:
    """Take in what a host says; what it said of an older assignment than its newest is not taken."""
    step = find(rollout, host)
    if step is None or step.again or report.generation < step.generation:
        return rollout
    if report.aside:
        stands = replace(step, aside=report.aside, reachable=True, away_since_ms=0)
        return put(rollout, stands if step.reachable else replace(stands, since_ms=rollout.clock_ms))
    wanted = [release for release in (rollout.release, rollout.previous) if release is not None]
    unprepared = next((f"{entry.release.name}: {entry.failure}" for entry in report.prepared if entry.failure), "")
    lying = {entry.release.digest for entry in report.prepared if not entry.failure}
    ready = all(release.digest in lying for release in wanted)
    changed = step.state != report.state or not step.reachable
    if step.moved and report.state == "done" and step.state != "done":
        rollout = replace(rollout, progress_ms=rollout.clock_ms)
    return put(
        rollout,
        replace(
            step,
            state=report.state,
            reason=report.reason,
            slow_starts_ms=step.slow_starts_ms | _slow_starts_ms(rollout, report),
            prepared=step.prepared or ready,
            unprepared=unprepared,
            reachable=True,
            aside="",
            away_since_ms=0,
            since_ms=rollout.clock_ms if changed else step.since_ms,
        ),
    )


def _slow_starts_ms(rollout: Rollout, report: AppReport) -> dict[str, Milliseconds]:
    return {
        one.name: one.start_ms
        for one in report.instances
        if one.release == rollout.release.name and one.start_ms is not None and one.start_ms > SLOW_START_MS
    }


def connected(rollout: Rollout, host: HostName, reachable: bool) -> Rollout:  # noqa: FBT001 - one fact
    step = find(rollout, host)
    if step is None or step.reachable == reachable:
        return rollout
    away_since_ms = 0 if reachable else rollout.wall_ms
    return put(rollout, replace(step, reachable=reachable, since_ms=rollout.clock_ms, away_since_ms=away_since_ms))


def belonging(rollout: Rollout, hosts: tuple[HostName, ...]) -> Rollout:
    """Hosts have left the environment or joined it; a host that joins gets stable until its turn comes."""
    kept = tuple(step for step in rollout.hosts if step.host in hosts)
    known = {step.host for step in kept}
    joined = tuple(
        HostStep(host=host, reachable=False, since_ms=rollout.clock_ms, away_since_ms=rollout.wall_ms)
        for host in hosts
        if host not in known
    )
    return replace(rollout, hosts=(*kept, *joined))


def find(rollout: Rollout, host: HostName) -> HostStep | None:
    return next((step for step in rollout.hosts if step.host == host), None)


def put(rollout: Rollout, step: HostStep) -> Rollout:
    return replace(rollout, hosts=tuple(step if step.host == other.host else other for other in rollout.hosts))


def before(rollout: Rollout, step: HostStep) -> Overrides | None:
    """What stable runs with on a host; one that joined in mid-rollout gets it as the others have it."""
    return step.before or next((other.before for other in rollout.hosts if other.before is not None), None)


def patience_ms(pace: Pace) -> Milliseconds:
    """How long a host that is away is waited for: as long as one may take, and while a coordinator starts anew."""
    return max(pace.deadline_ms, AWAY_MS_MIN)


def lost(rollout: Rollout, step: HostStep) -> bool:
    """Whether a host has been away too long to be waited for: it is left behind and converges when it returns."""
    return not step.reachable and rollout.clock_ms - step.since_ms >= patience_ms(rollout.pace)


def left_behind(rollout: Rollout, step: HostStep) -> bool:
    """Whether nobody waits for a host: it was away too long, or a person has set it aside."""
    return bool(step.aside) or lost(rollout, step)


def takes_part(step: HostStep) -> bool:
    """Whether it can be told to move now."""
    return step.reachable and not step.aside


def failed(step: HostStep) -> bool:
    """Whether it failed at what this rollout told it; one that a person set aside answers for itself."""
    return step.state == "failed" and not step.aside


def moving(rollout: Rollout, steps: Iterable[HostStep]) -> int:
    """How many of `steps`, all told to move, are on their way; one that is left behind holds up nobody."""
    return sum(not step.again and step.state not in AT_REST and not left_behind(rollout, step) for step in steps)


def stragglers(rollout: Rollout) -> tuple[HostName, ...]:
    """Hosts that could not be reached, or were set aside, and so are not where the rollout wants them."""
    return tuple(step.host for step in rollout.hosts if not takes_part(step))


def set_aside(rollout: Rollout) -> str:
    """Who takes no part, and why, for people."""
    return ", ".join(f"{step.host} is {step.aside}" for step in rollout.hosts if step.reachable and step.aside)


def budget(rollout: Rollout, pace: Pace, on_their_way: int) -> int:
    """How many more hosts that serve may move now, beside those `on_their_way`.

    `batch` bounds those that move at once. Hosts that are down count against `max_unavailable`, and so does one that
    moves unless every process type is start-first: then it serves all the while, and only being down makes it count.
    """
    down = sum(not step.reachable or step.aside == "drained" or failed(step) for step in rollout.hosts)
    room = pace.batch - on_their_way
    if rollout.gapless:
        return room if down <= pace.max_unavailable else 0
    return min(room, pace.max_unavailable - down - on_their_way)
