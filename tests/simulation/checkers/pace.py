"""Never more hosts move than the pace allows, nor are more away than it allows when another is told to move."""

from agent.model.ids import HostName
from agent.model.rollout import HostStep, Rollout
from tests.simulation.world import World

AT_REST = ("done", "failed")


class Pace:
    """Looks at each host that was told to move since the last look."""

    def __init__(self) -> None:
        self._before: Rollout | None = None

    def __call__(self, world: World) -> str:
        rollout, before = world.coordinator.rollout, self._before
        self._before = rollout
        if rollout is None:
            return ""
        known = {step.host: step for step in before.hosts} if before and before.id == rollout.id else {}
        told = [step for step in rollout.hosts if _newly(step, known.get(step.host))]
        if not told:
            return ""
        back = any(step.back for step in told)
        pace = rollout.back_pace if back else rollout.pace
        moving = {
            s.host for s in rollout.hosts if (s.back if back else s.moved) and not s.again and s.state not in AT_REST
        }
        moving -= {s.host for s in rollout.hosts if _lost(rollout, s)}
        if len(moving) > pace.batch:
            return f"{len(moving)} hosts move at once, a batch is {pace.batch}"
        healthy = [step for step in told if step.host in known and known[step.host].state != "failed"]
        away = {
            step.host for step in rollout.hosts if not step.reachable or (step.state == "failed" and not step.aside)
        }
        if not rollout.gapless and not back:
            away |= moving
        if healthy and not back and len(away) > pace.max_unavailable:
            return f"{', '.join(sorted(away))} are away when {healthy[0].host} is told, {pace.max_unavailable} may be"
        return ""


def _newly(step: HostStep, before: HostStep | None) -> bool:
    was: HostName | None = before.host if before else None
    moved = step.moved and not (before and before.moved)
    return was is not None and (moved or (step.back and not (before and before.back)))


def _lost(rollout: Rollout, step: HostStep) -> bool:
    """Whether nobody waits for it: away too long, or set aside by a person."""
    return bool(step.aside) or (not step.reachable and rollout.clock_ms - step.since_ms >= rollout.pace.deadline_ms)
