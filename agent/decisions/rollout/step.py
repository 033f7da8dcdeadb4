"""The rollout: which host moves next, when to stop, how to come back.

Rules: everything lies on every reachable host before the first one moves; the release command runs before any new
process starts; the first failed host stops the rollout; whatever was moved is brought back to stable; a rollback that
fails stops and says so, it never starts another; every state that waits for something has a deadline.

Events are levels (a report is the whole truth of a host), so each step decides from the stored rollout alone, and
asking again after a restart gives the same answer. Not handled here: which release an order may name, the store, the
link.
"""

from typing import Final

from msgspec.structs import replace

from agent.decisions.rollout import back, forward, hosts
from agent.decisions.rollout.state import (
    Abort,
    Begin,
    HostsChanged,
    Pause,
    Reachable,
    Reported,
    Restarted,
    Resume,
    RolloutAction,
    RolloutDecision,
    RolloutEvent,
    Tick,
    Wake,
)
from agent.model.rollout import Migration, Rollout
from agent.model.units import Instant, Milliseconds

JUMP_MS_MAX: Final = 60_000
"""The most that the rollout's clock moves at once: a long absence ends no deadline, nor a wall clock that jumps."""
TICK_MS_MAX: Final = 30_000


def step(rollout: Rollout, event: RolloutEvent, now: Instant) -> RolloutDecision:
    """Take one event in, say what is to be committed and then sent. A terminal rollout never changes again.

    Events that wait for one another are decided by the rollout's own clock alone.
    """
    refused = _refusal(rollout, event)
    if refused or rollout.terminal:
        return RolloutDecision(state=rollout, refused=refused)
    before = rollout = _at(rollout, now)
    rollout = _apply(rollout, event)
    actions: list[RolloutAction] = []
    while True:  # each turn enters a later state, so this ends
        state = rollout.state
        rollout, more = _advance(rollout)
        actions += more
        if rollout.state == state or rollout.terminal:
            break
    changed = rollout != before
    if changed:
        rollout = replace(rollout, changed_ms=max(now.wall_ms, before.changed_ms + 1))
    if not rollout.terminal:
        actions.append(Wake(after_ms=_next_moment(rollout)))
    return RolloutDecision(state=rollout, actions=tuple(actions), changed=changed)


def _at(rollout: Rollout, now: Instant) -> Rollout:
    """Time goes on. What the wall clock says is believed only where the machine has booted since, and not far."""
    if rollout.boot_id == now.boot_id:
        elapsed_ms = now.boottime_ms - rollout.boottime_ms
    else:
        elapsed_ms = now.wall_ms - rollout.wall_ms
    clock_ms = rollout.clock_ms + min(max(0, elapsed_ms), JUMP_MS_MAX)
    return replace(rollout, wall_ms=now.wall_ms, boot_id=now.boot_id, boottime_ms=now.boottime_ms, clock_ms=clock_ms)


def _refusal(rollout: Rollout, event: RolloutEvent) -> str:
    match event:
        case Abort() if rollout.terminal or rollout.state == "rolling_back":
            return f"cannot abort: rollout {rollout.id} is {rollout.state}"
        case Abort() if rollout.kind == "rollback":
            return f"cannot abort: rollout {rollout.id} is the way back already; swap to the release you want instead"
        case Pause() if rollout.state != "running":
            return f"cannot pause: rollout {rollout.id} is {rollout.state}, not running"
        case Resume() if rollout.state != "paused":
            return f"cannot resume: rollout {rollout.id} is {rollout.state}, not paused"
    return ""


def _apply(rollout: Rollout, event: RolloutEvent) -> Rollout:
    match event:
        case Begin():
            return replace(rollout, progress_ms=rollout.clock_ms)
        case Reported(host=host, report=report):
            rollout = hosts.reported(rollout, host, report)
            ran, migration = report.admin, rollout.migration
            if ran is not None and migration is not None and ran.rollout == rollout.id and migration.host == host:
                known = Migration(host=host, state=ran.state, exit_code=ran.exit_code, output=ran.output)
                rollout = replace(rollout, migration=known)
            return rollout
        case Reachable(host=host, reachable=reachable):
            return hosts.connected(rollout, host, reachable)
        case Restarted():
            for step in rollout.hosts:
                rollout = hosts.connected(rollout, step.host, reachable=False)
            return rollout
        case HostsChanged(hosts=names):
            return hosts.belonging(rollout, names)
        case Abort(by=by):
            return back.turn(rollout, f"aborted by {by}", "aborted")
        case Pause(by=by):
            return replace(rollout, state="paused", resume_to=rollout.state, reason=f"paused by {by}")
        case Resume():
            state = rollout.resume_to or "running"
            rollout = replace(rollout, state=state, resume_to=None, reason="", progress_ms=rollout.clock_ms)
            return forward.retry_failed(rollout)
        case Tick():
            return rollout


def _advance(rollout: Rollout) -> tuple[Rollout, list[RolloutAction]]:
    match rollout.state:
        case "planned":
            return forward.begin(rollout)
        case "preflight":
            return forward.preflight(rollout)
        case "migrating":
            return forward.migrate(rollout)
        case "running" | "paused":
            return forward.run(rollout)
        case "rolling_back":
            return back.run(rollout)
        case _:
            return rollout, []


def _next_moment(rollout: Rollout) -> Milliseconds:
    moments = [step.since_ms + hosts.patience_ms(rollout.pace) for step in rollout.hosts if not step.reachable]
    if rollout.state != "paused":
        moments.append(rollout.progress_ms + rollout.pace.progress_deadline_ms)
    if rollout.state == "running" and rollout.pace.pause_between_ms:
        moments.append(rollout.progress_ms + rollout.pace.pause_between_ms)
    ahead = [moment - rollout.clock_ms for moment in moments if moment > rollout.clock_ms]
    return min([*ahead, TICK_MS_MAX])
