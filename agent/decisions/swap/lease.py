"""Singletons on one host: none without a lease, ended well before it runs out, asked for while it is wanted or lives.

Rules: a lease of another boot is none. The agent stops the instance `LEAD_MS` before its guard would, so that the guard
is needed only where the agent is not. What a person has stopped keeps its lease: nobody else starts it meanwhile.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from agent.decisions.swap import hand
from agent.decisions.swap.hand import Place, aim
from agent.decisions.swap.orders import returns_to_stable
from agent.decisions.swap.slots import LIVE
from agent.decisions.swap.state import InstanceView, Lease, SwapState
from agent.model.assignment import Assignment
from agent.model.ids import ProcessName
from agent.model.lease import WITHOUT_END, LeaseAsk, LeaseName
from agent.model.process import ProcessType, StopPolicy
from agent.model.units import Instant, Milliseconds

LEAD_MS: Final = 3_000
"""For the notice that is seen before the signal, and for an agent that is late."""
QUESTIONS_MAX: Final = 4
FOREVER_MS: Final = 2**53
"""A boottime that no boot reaches: of a lease without an end."""


class Question(Struct, frozen=True, kw_only=True):
    """What was asked, when, and with which number; of it what has been asked ever since."""

    number: int
    at: Instant
    asks: tuple[LeaseAsk, ...]


def outstanding(questions: Iterable[Question], newest: Question) -> tuple[Question, ...]:
    """The questions to which an answer counts: what was given back since does not come again by one that is late."""
    asked = {ask.name for ask in newest.asks}
    older = [
        replace(one, asks=tuple(ask for ask in one.asks if ask.name in asked))
        for one in questions
        if one.number > newest.number - QUESTIONS_MAX
    ]
    return (*older, newest)


def wanted(state: SwapState, process: ProcessType, count: int, now: Instant) -> int:
    """How many instances of a type this host is to run of `count`."""
    if process.total:
        return state.shares.get(process.name, 0)
    if not process.singleton:
        return count
    return int(bool(count) and _keeps_ms(state, process.name, now) > 0)


def is_decided(state: SwapState, process: ProcessType) -> bool:
    """Whether it is known who runs a singleton, or how many of a total this host does, or that nobody can tell."""
    one_of_all = process.singleton or process.total
    return not one_of_all or process.name in state.shares or _lease(state, process.name) is not None


def lost(state: SwapState, now: Instant) -> set[Place]:
    """Singletons that live here without a lease that lasts, whatever is assigned: they are to stop."""
    return {
        (view.process, view.slot)
        for view in state.instances
        if view.type is not None and view.type.singleton and view.state in LIVE
        if _keeps_ms(state, view.process, now) <= 0
    }


def ends(state: SwapState, now: Instant) -> Iterator[Milliseconds]:
    """After how long one is to be looked at again."""
    untils = {lease.process: lease.until for lease in state.leases if lease.until is not None}
    return (_keeps_ms(state, name, now) for name, until in untils.items() if until.boottime_ms < FOREVER_MS)


def asks(
    state: SwapState,
    views: Iterable[InstanceView],
    untils: Mapping[ProcessName, Instant],
    lease_ms: Milliseconds,
    now: Instant,
) -> Iterator[LeaseAsk]:
    """All that a coordinator is to know. `views` are the instances as they are now, `untils` what was granted last."""
    assignment = aim(state)
    if assignment is None:
        return
    runs = assignment.release is not None and not state.draining
    declared = {process.name: process for process in (state.spec.processes if state.spec and runs else ())}
    living = {view.process: view.type for view in views if view.type is not None and view.state != "stopped"}
    # Until the release is known again, what lives shows what is to.
    yield from _parts(state, assignment, declared.values() if state.spec or not runs else living.values())
    for name in sorted({*declared, *living, *untils}):
        types = [one for one in (declared.get(name), living.get(name)) if one is not None and one.singleton]
        wants = name in declared and declared[name].singleton and _would_start(state, name, held=name in untils)
        # Until the release is known again, what the host has it may still want.
        if wants or (types and name in living) or (name in untils and state.spec is None and runs):
            yield LeaseAsk(
                name=LeaseName(assignment.app, assignment.environment, name),
                hold_ms=_hold_ms(types, lease_ms),
                bound_ms=_bound_ms(untils.get(name), now),
                wants=wants,
            )


def _parts(state: SwapState, assignment: Assignment, types: Iterable[ProcessType]) -> Iterator[LeaseAsk]:
    for process in types:
        if process.total and _would_start(state, process.name, held=False):
            name = LeaseName(assignment.app, assignment.environment, process.name)
            yield LeaseAsk(name=name, hold_ms=WITHOUT_END, total=process.total)


def _would_start(state: SwapState, name: ProcessName, *, held: bool) -> bool:
    """Whether the lease is of use here. What a person has stopped where it ran is not to start elsewhere instead."""
    if state.phase == "failed" and not returns_to_stable(state):
        return False
    return held or not hand.halted(state, name)


def stop_policy(state: SwapState, views: Iterable[InstanceView], name: ProcessName) -> StopPolicy:
    """How an instance of it is to be ended: as what it was launched, if any lives."""
    living = [view.type for view in views if view.process == name and view.type is not None]
    declared = state.spec.process(name) if state.spec else None
    return next((one.stop for one in (*living, declared) if one is not None), StopPolicy())


def without(state: SwapState) -> Iterator[tuple[ProcessName, str]]:
    """Singletons that are to run and that no host is known to have; why."""
    assignment = aim(state)
    if assignment is None or assignment.release is None or state.draining:
        return
    for process in state.spec.processes if state.spec else ():
        here = any(view.process == process.name for view in state.instances)
        is_placed = not (process.singleton or process.total) or process.name in state.shares
        if is_placed or here or hand.halted(state, process.name):
            continue
        lease, lacks = _lease(state, process.name), "no lease" if process.singleton else "no word of how many"
        if lease is None:
            yield process.name, f"{lacks}: the coordinator has not answered yet"
        elif lease.why and not lease.holder:
            yield process.name, f"{lacks}: {lease.why}"


def _lease(state: SwapState, name: ProcessName) -> Lease | None:
    return next((lease for lease in state.leases if lease.process == name), None)


def _keeps_ms(state: SwapState, name: ProcessName, now: Instant) -> Milliseconds:
    """How much longer an instance may stay; 0 or less: it must not be there."""
    lease = _lease(state, name)
    if lease is None or lease.until is None:
        return 0
    types = [view.type for view in state.instances if view.process == name and view.type is not None]
    declared = state.spec.process(name) if state.spec else None
    grace_ms = max((one.stop.grace_ms for one in (*types, declared) if one is not None), default=0)
    return keeps_ms(lease.until, grace_ms, now)


def keeps_ms(until: Instant, grace_ms: Milliseconds, now: Instant) -> Milliseconds:
    """How long before its end an instance is asked to go, so that its guard need not."""
    return until.boottime_ms - now.boottime_ms - grace_ms - LEAD_MS if until.boot_id == now.boot_id else 0


def _hold_ms(types: Iterable[ProcessType], lease_ms: Milliseconds) -> Milliseconds:
    """The signal comes when no answer came for `lease_ms`, the end after the grace."""
    holds = [WITHOUT_END if one.on_partition == "keep" else lease_ms + one.stop.grace_ms for one in types]
    return WITHOUT_END if WITHOUT_END in holds else max(holds, default=lease_ms)


def _bound_ms(until: Instant | None, now: Instant) -> Milliseconds:
    if until is None or until.boot_id != now.boot_id:
        return 0
    if until.boottime_ms >= FOREVER_MS:
        return WITHOUT_END
    return max(0, until.boottime_ms - now.boottime_ms)


def until(asked: Instant, hold_ms: Milliseconds) -> Instant:
    """When a lease ends that was asked for at that moment, for so long."""
    if hold_ms == WITHOUT_END:
        return Instant(asked.boot_id, FOREVER_MS, asked.wall_ms)
    return asked.after(hold_ms)
