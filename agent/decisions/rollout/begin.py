"""A new rollout from an order, the environment's settings and the hosts that belong to it; and its plan in words."""

from agent.decisions.rollout.hosts import patience_ms
from agent.model.assignment import ReleaseRef
from agent.model.environment import EnvironmentSettings
from agent.model.ids import HostName, RolloutId
from agent.model.process import AppSpec
from agent.model.release import Order
from agent.model.rollout import HostStep, Rollout
from agent.model.units import Milliseconds, say_duration


def plan(
    *,
    rollout_id: RolloutId,
    order: Order,
    envelope: str,
    settings: EnvironmentSettings,
    spec: AppSpec,
    hosts: tuple[HostStep, ...],
    first_generation: int,
    asked_by: str,
    now_ms: Milliseconds,
) -> Rollout:
    """The rollout as it is stored before anything is done. `spec` is the app as the ordered release declares it.

    `hosts` come in the order in which they will move, each with whether, and since when, it can be reached.
    `first_generation` is higher than that of any assignment these hosts hold for this app and environment.
    """
    previous = None
    if order.replaces is not None and order.replaces_digest is not None:
        previous = ReleaseRef(name=order.replaces, digest=order.replaces_digest)
    return Rollout(
        id=rollout_id,
        app=order.app,
        environment=order.environment,
        kind=order.kind,
        release=ReleaseRef(name=order.release, digest=order.release_digest),
        previous=previous,
        order=envelope,
        strategy=settings.strategy,
        pace=settings.back_pace(len(hosts)) if order.kind == "rollback" else settings.pace(len(hosts)),
        back_pace=settings.back_pace(len(hosts)),
        on_failure=settings.rolling.on_failure,
        needs_migration=spec.release is not None and order.kind == "swap",
        gapless=all(process.swap == "start-first" or process.singleton for process in spec.processes),
        asked_by=asked_by,
        created_ms=now_ms,
        changed_ms=now_ms,
        wall_ms=now_ms,
        clock_ms=now_ms,
        progress_ms=now_ms,
        next_generation=first_generation,
        hosts=hosts,
    )


def lines(rollout: Rollout) -> tuple[str, ...]:
    """What will happen, one line a step, for `--plan`."""
    pace = rollout.pace
    names = [step.host for step in rollout.hosts]
    away = [step.host for step in rollout.hosts if not step.reachable]
    out = [
        f"{rollout.kind} {rollout.app} in {rollout.environment}: {_name(rollout.previous)} -> {rollout.release.name}"
    ]
    if rollout.kind == "swap":
        out.append(f"fetch and verify {rollout.release.name} on {_list(names)}; nothing moves before it lies on all")
    if rollout.needs_migration:
        out.append("run the release command once, on one host; its failure swaps nothing")
    size = pace.batch if rollout.gapless else max(1, min(pace.batch, pace.max_unavailable))
    for start in range(0, len(names), size):
        out.append(f"swap {_list(names[start : start + size])}; ready for {say_duration(pace.min_ready_ms)} each")
        if pace.pause_between_ms and start + size < len(names):
            out.append(f"wait {say_duration(pace.pause_between_ms)}")
    out.append(_on_failure(rollout))
    if away:
        patience = say_duration(patience_ms(pace))
        out.append(f"cannot be reached now: {_list(away)}; waited for {patience}, then left behind")
    return tuple(out)


def _on_failure(rollout: Rollout) -> str:
    deadline = say_duration(rollout.pace.deadline_ms)
    if rollout.kind == "rollback":
        return f"a host that is not ready within {deadline}: stop and say so"
    if rollout.on_failure == "pause":
        return f"a host that is not ready within {deadline}: pause"
    target = (
        f"bring {rollout.previous.name} back on all that moved" if rollout.previous else "stop it on all that moved"
    )
    return f"a host that is not ready within {deadline}: {target}"


def _name(release: ReleaseRef | None) -> str:
    return release.name if release else "nothing"


def _list(names: list[HostName]) -> str:
    return ", ".join(names)
