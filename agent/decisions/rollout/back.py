"""The way back of a rollout: every host that was told to move gets stable again, at the rollback's own pace."""

from msgspec.structs import replace

from agent.decisions.rollout import hosts
from agent.decisions.rollout.hosts import AT_REST
from agent.decisions.rollout.state import Ended, Give, RolloutAction
from agent.model.rollout import Rollout, RolloutState


def turn(rollout: Rollout, reason: str, ends_as: RolloutState) -> Rollout:
    """Leave the way forward. Hosts that were never moved need nothing; `run` ends it at once when that is all."""
    return replace(rollout, state="rolling_back", reason=reason, failed_as=ends_as, resume_to=None)


def run(rollout: Rollout) -> tuple[Rollout, list[RolloutAction]]:
    """Give stable back as the budget allows; end when every moved host that can be reached has it, or has failed."""
    actions: list[RolloutAction] = []
    if not any(step.back for step in rollout.hosts):
        rollout = replace(rollout, progress_ms=rollout.clock_ms)
    on_their_way = hosts.moving(rollout, (step for step in rollout.hosts if step.back))
    waiting = [step for step in rollout.hosts if step.moved and not step.back]
    waiting.sort(key=lambda step: not step.reachable)
    for step in waiting[: max(0, _room(rollout) - on_their_way)]:
        generation = rollout.next_generation
        rollout = hosts.put(rollout, replace(step, generation=generation, state="waiting", back=True, again=False))
        rollout = replace(rollout, next_generation=generation + 1)
        prepare = (rollout.previous,) if rollout.previous else ()
        actions.append(
            Give(
                host=step.host,
                generation=generation,
                release=rollout.previous,
                prepare=prepare,
                overrides=hosts.before(rollout, step),
            )
        )
    open_steps = [
        step
        for step in rollout.hosts
        if step.moved and not (step.back and (step.state in AT_REST or step.aside)) and not hosts.lost(rollout, step)
    ]
    overdue = rollout.clock_ms - rollout.progress_ms >= rollout.pace.progress_deadline_ms
    if open_steps and not overdue:
        return rollout, actions
    rollout, ended = _end(rollout, overdue=bool(open_steps))
    return rollout, [*actions, ended]


def _room(rollout: Rollout) -> int:
    """Hosts that may go back at once. Those that are down do not count: this is the way out of their trouble."""
    pace = rollout.back_pace
    return pace.batch if rollout.gapless else min(pace.batch, pace.max_unavailable)


def _end(rollout: Rollout, *, overdue: bool) -> tuple[Rollout, Ended]:
    broken = [step.host for step in rollout.hosts if step.back and hosts.failed(step)]
    moved = any(step.moved for step in rollout.hosts)
    ends_as: RolloutState = rollout.failed_as or "failed"
    reason = rollout.reason
    if broken or overdue:
        who = ", ".join(broken) or "not every host in time"
        ends_as, reason = "failed", f"{reason}; and stable did not come back on: {who}"
    elif rollout.previous is None and moved and ends_as == "rolled_back":
        ends_as = "failed"  # the first deploy: there was nothing to come back to, so everything was stopped
    healthy = not broken and not overdue and rollout.previous is not None
    return replace(rollout, state=ends_as, reason=reason), Ended(state=ends_as, runs=rollout.previous, healthy=healthy)
