"""The way forward of a rollout: everything on every host, the release command once, then host after host."""

from msgspec.structs import replace

from agent.decisions.rollout import back, hosts
from agent.decisions.rollout.state import Ended, Give, RolloutAction
from agent.model.assignment import AdminRun, ReleaseRef
from agent.model.rollout import HostStep, Migration, Rollout

Outcome = tuple[Rollout, list[RolloutAction]]


def begin(rollout: Rollout) -> Outcome:
    """Ask every host to lay the new release and stable ready, while it goes on running what it runs.

    A rollback moves at once: its target ran here, so it lies on the hosts, and each verifies it before launching it.
    """
    if rollout.kind == "rollback":
        return replace(rollout, state="running", progress_ms=rollout.clock_ms), []
    actions: list[RolloutAction] = []
    for step in rollout.hosts:
        rollout, give = _give(rollout, step, rollout.previous)
        actions.append(give)
    return replace(rollout, state="preflight", progress_ms=rollout.clock_ms), actions


def preflight(rollout: Rollout) -> Outcome:
    """Wait until everything lies on every host that can be reached. Nothing has moved: a failure swaps nothing."""
    rollout, actions = _welcome(rollout)
    there = [step for step in rollout.hosts if hosts.takes_part(step)]
    broken = next((step for step in there if step.unprepared), None)
    if broken is not None:
        return back.turn(rollout, f"{broken.host} could not prepare {broken.unprepared}", "failed"), actions
    if rollout.hosts and all(step.aside for step in rollout.hosts):
        return back.turn(rollout, f"no host takes part: {hosts.set_aside(rollout)}", "failed"), actions
    waited_for = [step for step in rollout.hosts if not step.prepared and not hosts.left_behind(rollout, step)]
    if waited_for or not there:
        if _overdue(rollout):
            names = ", ".join(step.host for step in waited_for) or "any host"
            return back.turn(rollout, f"the release did not reach {names} in time", "failed"), actions
        return rollout, actions
    state = "migrating" if rollout.needs_migration else "running"
    return replace(rollout, state=state, progress_ms=rollout.clock_ms), actions


def migrate(rollout: Rollout) -> Outcome:
    """The release command, once, on one host; its failure swaps nothing."""
    rollout, actions = _welcome(rollout)
    migration = rollout.migration
    if migration is None:
        step = next((step for step in rollout.hosts if hosts.takes_part(step) and step.prepared), None)
        if step is not None:
            rollout, give = _give(rollout, step, rollout.previous, admin=True)
            return replace(rollout, migration=Migration(host=step.host)), [*actions, give]
    elif migration.state == "succeeded":
        return replace(rollout, state="running", progress_ms=rollout.clock_ms), actions
    elif migration.state == "failed":
        last_line = migration.output.rstrip().rpartition("\n")[2]
        why = f"exit code {migration.exit_code}" if migration.exit_code is not None else last_line
        return back.turn(rollout, f"the release command failed on {migration.host}: {why}", "failed"), actions
    elif hosts.find(rollout, migration.host) is None:
        why = f"{migration.host}, which runs the release command, has left the environment; it may still run"
        return back.turn(rollout, why, "failed"), actions
    if _overdue(rollout):
        where = f"on {migration.host} " if migration else ""
        return back.turn(
            rollout, f"the release command {where}did not end in time; it may still run", "failed"
        ), actions
    return rollout, actions


def run(rollout: Rollout) -> Outcome:
    """Move hosts as the budget allows, watch those that moved, end when all that can be reached are done."""
    rollout, actions = _welcome(rollout)
    failed = next((step for step in rollout.hosts if step.moved and hosts.failed(step)), None)
    if failed is not None:
        return _fail(rollout, f"{failed.host} failed: {failed.reason}", actions)
    if rollout.state == "paused":
        return rollout, actions
    if _all_done(rollout):
        return replace(rollout, state="done", reason=_left_behind(rollout)), [
            *actions,
            Ended(state="done", runs=rollout.release, healthy=True),
        ]
    if _overdue(rollout):
        slow = ", ".join(step.host for step in rollout.hosts if not (step.moved and step.state == "done")) or "any host"
        return _fail(rollout, f"no progress: waiting for {slow}", actions)
    if _in_pause(rollout):
        return rollout, actions
    waiting = [step for step in rollout.hosts if (step.again or not step.moved) and hosts.takes_part(step)]
    for step in sorted(waiting, key=lambda step: not (step.again or step.state == "failed")):
        if _may_move(rollout, step):
            rollout, give = _give(rollout, step, rollout.release, moved=True)
            actions.append(give)
    return rollout, actions


def _may_move(rollout: Rollout, step: HostStep) -> bool:
    """Whether there is room for one more. One on which stable fails has nothing to lose: only `batch` counts."""
    on_their_way = hosts.moving(rollout, (other for other in rollout.hosts if other.moved))
    if step.state == "failed":
        return on_their_way < rollout.pace.batch
    return hosts.budget(rollout, rollout.pace, on_their_way) > 0


def retry_failed(rollout: Rollout) -> Rollout:
    """Resumed after a failure: hosts that failed are to be told again, by a newer assignment."""
    for step in rollout.hosts:
        if step.moved and hosts.failed(step):
            rollout = hosts.put(rollout, replace(step, again=True, state="waiting", reason=""))
    return rollout


def _give(
    rollout: Rollout,
    step: HostStep,
    release: ReleaseRef | None,
    *,
    moved: bool = False,
    admin: bool = False,
) -> tuple[Rollout, Give]:
    """New settings reach a host when it moves, and not before."""
    generation = rollout.next_generation
    step = replace(
        step,
        generation=generation,
        state="waiting",
        moved=step.moved or moved,
        again=False,
        since_ms=rollout.clock_ms if moved else step.since_ms,
    )
    prepare = tuple(ref for ref in (rollout.release, rollout.previous) if ref is not None)
    give = Give(
        host=step.host,
        generation=generation,
        release=release,
        prepare=prepare,
        admin=AdminRun(rollout=rollout.id, release=rollout.release) if admin else None,
        overrides=None if moved else hosts.before(rollout, step),
    )
    return replace(hosts.put(rollout, step), next_generation=generation + 1), give


def _welcome(rollout: Rollout) -> Outcome:
    """A host that joined in mid-rollout gets stable, and the new release laid ready, until its turn comes."""
    actions: list[RolloutAction] = []
    for step in rollout.hosts:
        if step.generation == 0 and rollout.kind == "swap":
            rollout, give = _give(rollout, step, rollout.previous)
            actions.append(give)
    return rollout, actions


def _all_done(rollout: Rollout) -> bool:
    done = [step for step in rollout.hosts if step.moved and step.state == "done" and hosts.takes_part(step)]
    rest = [step for step in rollout.hosts if step not in done]
    return bool(done) and all(hosts.left_behind(rollout, step) for step in rest)


def _left_behind(rollout: Rollout) -> str:
    away = [step.host for step in rollout.hosts if not step.reachable]
    aside = hosts.set_aside(rollout)
    parts = [f"could not be reached: {', '.join(away)}; they get the release when they return"] if away else []
    parts += [f"set aside by a person: {aside}; they get it when they take part again"] if aside else []
    return "; ".join(parts)


def _in_pause(rollout: Rollout) -> bool:
    some_done = any(step.moved and step.state == "done" for step in rollout.hosts)
    return some_done and rollout.clock_ms - rollout.progress_ms < rollout.pace.pause_between_ms


def _overdue(rollout: Rollout) -> bool:
    return rollout.clock_ms - rollout.progress_ms >= rollout.pace.progress_deadline_ms


def _fail(rollout: Rollout, reason: str, actions: list[RolloutAction]) -> Outcome:
    if rollout.kind == "rollback":  # a rollback that fails stops: there is nothing to go back to from here
        ended = Ended(state="failed", runs=rollout.release, healthy=False)
        return replace(rollout, state="failed", reason=reason), [*actions, ended]
    if rollout.on_failure == "pause":
        if rollout.state == "paused":
            return rollout, actions
        return replace(rollout, state="paused", resume_to="running", reason=reason), actions
    return back.turn(rollout, reason, "rolled_back"), actions
