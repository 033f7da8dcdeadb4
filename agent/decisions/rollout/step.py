"""The rollout: which host moves next, when to stop, how to come back.

Rules: everything lies on every reachable host before the first one moves; the release command runs before any new
process starts; the first failed host stops the rollout; whatever was moved is brought back to stable; a rollback that
fails stops and says so, it never starts another; every state that waits for something has a deadline.

Events are levels (a report is the whole truth of a host), so each step decides from the stored rollout alone, and
asking again after a restart gives the same answer. Not handled here: which release an order may name, the store, the
link.
"""

from msgspec.structs import replace

from agent.decisions.rollout import back, forward, hosts
from agent.decisions.rollout.state import (
    Abort,
    Begin,
    HostsChanged,
    Pause,
    Reachable,
    Reported,
    Resume,
    RolloutAction,
    RolloutDecision,
    RolloutEvent,
    Tick,
    Wake,
)
from agent.model.rollout import Migration, Rollout
from agent.model.units import Milliseconds


def step(rollout: Rollout, event: RolloutEvent, now_ms: Milliseconds) -> RolloutDecision:
    """Take one event in, say what is to be committed and then sent. A terminal rollout never changes again."""
    refused = _refusal(rollout, event)
    if refused or rollout.terminal:
        return RolloutDecision(state=rollout, refused=refused)
    before = rollout
    rollout = _apply(rollout, event, now_ms)
    actions: list[RolloutAction] = []
    while True:  # each turn enters a later state, so this ends
        state = rollout.state
        rollout, more = _advance(rollout, now_ms)
        actions += more
        if rollout.state == state or rollout.terminal:
            break
    if rollout != before:
        rollout = replace(rollout, changed_ms=max(now_ms, before.changed_ms + 1))
    if not rollout.terminal:
        actions += [Wake(at_ms=moment) for moment in _next_moment(rollout, now_ms)]
    return RolloutDecision(state=rollout, actions=tuple(actions))


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


def _apply(rollout: Rollout, event: RolloutEvent, now_ms: Milliseconds) -> Rollout:
    match event:
        case Begin():
            return replace(rollout, created_ms=now_ms, progress_ms=now_ms)
        case Reported(host=host, report=report):
            rollout = hosts.reported(rollout, host, report, now_ms)
            ran, migration = report.admin, rollout.migration
            if ran is not None and migration is not None and ran.rollout == rollout.id and migration.host == host:
                known = Migration(host=host, state=ran.state, exit_code=ran.exit_code, output=ran.output)
                rollout = replace(rollout, migration=known)
            return rollout
        case Reachable(host=host, reachable=reachable):
            return hosts.connected(rollout, host, reachable, now_ms)
        case HostsChanged(hosts=names):
            return hosts.belonging(rollout, names, now_ms)
        case Abort(by=by):
            return back.turn(rollout, f"aborted by {by}", "aborted")
        case Pause(by=by):
            return replace(rollout, state="paused", resume_to=rollout.state, reason=f"paused by {by}")
        case Resume():
            resumed = replace(
                rollout, state=rollout.resume_to or "running", resume_to=None, reason="", progress_ms=now_ms
            )
            return forward.retry_failed(resumed)
        case Tick():
            return rollout


def _advance(rollout: Rollout, now_ms: Milliseconds) -> tuple[Rollout, list[RolloutAction]]:
    match rollout.state:
        case "planned":
            return forward.begin(rollout, now_ms)
        case "preflight":
            return forward.preflight(rollout, now_ms)
        case "migrating":
            return forward.migrate(rollout, now_ms)
        case "running" | "paused":
            return forward.run(rollout, now_ms)
        case "rolling_back":
            return back.run(rollout, now_ms)
        case _:
            return rollout, []


def _next_moment(rollout: Rollout, now_ms: Milliseconds) -> list[Milliseconds]:
    moments = [step.since_ms + rollout.pace.deadline_ms for step in rollout.hosts if not step.reachable]
    if rollout.state != "paused":
        moments.append(rollout.progress_ms + rollout.pace.progress_deadline_ms)
    if rollout.state == "running" and rollout.pace.pause_between_ms:
        moments.append(rollout.progress_ms + rollout.pace.pause_between_ms)
    ahead = [moment for moment in moments if moment > now_ms]
    return [min(ahead)] if ahead else []
