"""What a person on the host asked for by hand, over what is assigned: restart, stop, and going back to stay there.

Rules: a wish is stored like an assignment, so it survives the agent and is done once. A restart replaces the instances
that ran when it was asked for, as a swap would: by the type's order of swapping, within its surge; fresh ones that fail
end it, and what was not replaced yet stays. What is stopped stays stopped, through agents and boots, until a restart of
it or until another release is assigned. A pin outlives every assignment until it is taken away.
"""

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from agent.decisions.swap.slots import LIVE
from agent.decisions.swap.state import (
    ByHand,
    Halt,
    InstanceView,
    Pin,
    PinAsked,
    Renewal,
    RestartAsked,
    StopAsked,
    SwapState,
    UnpinAsked,
)
from agent.model.assignment import Assignment, PreparedReport, ReleaseRef
from agent.model.ids import ProcessName
from agent.model.units import Instant, Milliseconds, elapsed_ms, say_duration

Place = tuple[ProcessName, int]

_WAIT: Final = "wait for it, or go back: `rollway agent rollback`"


def aim(state: SwapState) -> Assignment | None:
    """The assignment as it counts here: while pinned, with the pinned release in the place of what is assigned."""
    held, pin = state.assignment, state.pin
    if held is None or pin is None:
        return held
    return replace(
        held,
        release=pin.release,
        prepare=(pin.release,),
        admin=None,
        counts=pin.overrides.counts,
        listen=pin.overrides.listen,
        linger_ms=pin.overrides.linger_ms,
    )


def way_back(state: SwapState) -> ReleaseRef | None:
    """Where a person who goes back on this host arrives: at what the swap's order replaces.

    After a way back, or a rollback, that is the release which was left: then at another one that was laid ready here.
    """
    held, order = state.assignment, state.order
    if held is None or order is None or state.pin is not None:
        return None
    ordered = ReleaseRef(name=order.release, digest=order.release_digest)
    replaced = None
    if order.replaces is not None and order.replaces_digest is not None:
        replaced = ReleaseRef(name=order.replaces, digest=order.replaces_digest)
    if order.kind == "swap" and held.release == ordered:
        return replaced
    return next((ref for ref in held.prepare if ref not in (held.release, ordered, replaced)), None)


# What a person says


def refusal(state: SwapState, event: ByHand) -> str:
    """Why it is not done; empty when it is."""
    assignment = aim(state)
    if assignment is None:
        return "nothing is assigned"
    if isinstance(event, UnpinAsked):
        return "" if state.pin else "no release is pinned"
    if isinstance(event, PinAsked):
        return ""
    if state.draining:
        return "the host is drained: `rollway agent undrain` starts everything"
    if assignment.release is None:
        return "nothing is to run"
    if isinstance(event, RestartAsked) and state.phase == "failed" and state.pin is None and not state.scaling:
        return f"the swap to {assignment.release.name} failed here: {state.reason}; {_WAIT}"
    if isinstance(event, RestartAsked) and state.spec is None:
        return f"release {assignment.release.name} is not on this host yet; {_WAIT}"
    return unknown(state, event.process, event.slot)


def unknown(state: SwapState, process: ProcessName | None, slot: int | None) -> str:
    """What there is not of what somebody named; empty where there is everything."""
    places = {*((view.process, view.slot) for view in state.instances), *emptied(state)}
    if process is not None and slot is not None:
        return "" if (process, slot) in places else f"there is no {process}.{slot}"
    types = {name for name, _ in places} | {one.name for one in (state.spec.processes if state.spec else ())}
    return f"there is no process type {process}" if process is not None and process not in types else ""


def taken(state: SwapState, event: ByHand, now: Instant) -> SwapState:
    """The state with the wish in it."""
    match event:
        case RestartAsked():
            return _restart(state, event, now)
        case StopAsked():
            return _stop(state, event, now)
        case PinAsked():
            return _pin(state, event, now)
        case UnpinAsked():
            held, pin = state.assignment, state.pin
            same = held is not None and pin is not None and held.release == pin.release
            return replace(
                _anew(state, now),
                pin=None,
                spec=state.spec if same else None,
                phase="fetching" if held is not None and held.release is not None else "swapping",
                prepared=(),
            )


def _restart(state: SwapState, event: RestartAsked, now: Instant) -> SwapState:
    chosen = [view for view in state.instances if _means(event, view.process, view.slot)]
    slots = {(view.process, view.slot) for view in chosen if view.state in LIVE or view.state == "stopped"}
    going_on = state.renewal.slots if state.renewal else ()
    return replace(
        state,
        renewal=Renewal(slots=tuple(sorted({*going_on, *slots})), asked=now, armed=now),
        halts=tuple(halt for halt in state.halts if not _means(event, halt.process, halt.slot)),
    )


def _stop(state: SwapState, event: StopAsked, now: Instant) -> SwapState:
    places = {(view.process, view.slot) for view in state.instances if _means(event, view.process, view.slot)}
    if event.slot is None:
        places |= set(_missing(state, event, {*places, *emptied(state)}))
    fresh = tuple(Halt(process=name, slot=slot, since=now) for name, slot in sorted(places - emptied(state)))
    renewal = state.renewal
    if renewal is not None:
        renewal = replace(renewal, slots=tuple(place for place in renewal.slots if place not in places))
    return replace(state, halts=(*state.halts, *fresh), renewal=renewal)


def _missing(state: SwapState, event: StopAsked, places: set[Place]) -> Iterator[Place]:
    """Places that are empty just now, of types that are stopped as a whole: they stay empty too."""
    assignment = aim(state)
    for process in state.spec.processes if state.spec else ():
        if assignment is None or event.process not in (None, process.name):
            continue
        taken_slots = {slot for name, slot in places if name == process.name}
        wanted = assignment.counts.get(process.name, process.count)
        free = (slot for slot in range(1, wanted + len(taken_slots) + 1) if slot not in taken_slots)
        for _ in range(wanted - len(taken_slots)):
            yield process.name, next(free)


def _pin(state: SwapState, event: PinAsked, now: Instant) -> SwapState:
    held = aim(state)
    overrides = {"overrides": held.overrides} if held is not None else {}
    return replace(
        _anew(state, now),
        pin=Pin(release=event.release, since=now, **overrides),
        spec=event.spec,
        phase="swapping",
        prepared=(PreparedReport(release=event.release),),
    )


def _anew(state: SwapState, now: Instant) -> SwapState:
    """As after an assignment of another release."""
    return replace(
        state, reason="", armed=now, done_instances=0, all_ready_since=None, halts=(), renewal=None, scaling=None
    )


def _means(event: RestartAsked | StopAsked, process: ProcessName, slot: int) -> bool:
    return event.process in (None, process) and event.slot in (None, slot)


def pending(state: SwapState, event: RestartAsked | StopAsked) -> Iterator[tuple[str, str]]:
    """What a wish still waits for: each instance by name, and what it is doing."""
    renewal = state.renewal
    for view in state.instances:
        place = (view.process, view.slot)
        if event.process not in (None, view.process):
            continue
        if isinstance(event, StopAsked):
            waits = place in emptied(state)
        else:
            fresh = renewal is not None and view.launched.boottime_ms >= renewal.asked.boottime_ms
            leaves = view.state == "draining" and place not in emptied(state)
            waits = leaves or is_over(state, view) or (fresh and view.state != "ready")
        if waits:
            yield f"{view.process}.{view.slot}", view.state


# What is made of it


def halted(state: SwapState, process: ProcessName) -> frozenset[int]:
    """Slots of a type that a person has emptied."""
    return frozenset(halt.slot for halt in state.halts if halt.process == process)


def emptied(state: SwapState) -> set[Place]:
    """The same of all types."""
    return {(halt.process, halt.slot) for halt in state.halts}


def renewed(state: SwapState, process: ProcessName) -> frozenset[int]:
    """Slots of a type whose instances are to be replaced."""
    return frozenset(slot for name, slot in (state.renewal.slots if state.renewal else ()) if name == process)


def is_over(state: SwapState, view: InstanceView) -> bool:
    """Whether an instance that has stopped is nobody's any more, however it ended."""
    place = (view.process, view.slot)
    return place in emptied(state) or (state.renewal is not None and place in state.renewal.slots)


def left(state: SwapState, places: set[Place], now: Instant) -> SwapState:
    """The restart without places that are empty, or about to be taken by a fresh instance."""
    renewal = state.renewal
    if renewal is None or not places.intersection(renewal.slots):
        return state
    slots = tuple(place for place in renewal.slots if place not in places)
    return replace(state, renewal=replace(renewal, slots=slots, armed=now))


def seen(state: SwapState, now: Instant) -> SwapState:
    """Where a restart is after a look at the instances."""
    if state.renewal is None:
        return state
    there = {(view.process, view.slot) for view in state.instances}
    gone = {place for place in state.renewal.slots if place not in there}
    return left(state, gone, now)


def judged(state: SwapState, now: Instant) -> SwapState:
    """Give a restart up when a fresh instance fails, or nothing comes forward: then what still runs is kept."""
    assignment, renewal = aim(state), state.renewal
    if assignment is None or renewal is None or not renewal.slots:
        return state
    failure = next(_failures(state, renewal), "")
    if not failure and elapsed_ms(renewal.armed, now) >= assignment.deadline_ms:
        failure = f"no instance was replaced within {say_duration(assignment.deadline_ms)}"
    if not failure:
        return state
    kept = ", ".join(f"{name}.{slot}" for name, slot in renewal.slots)
    return replace(state, renewal=replace(renewal, slots=(), failure=f"{failure}; not restarted: {kept}"))


def _failures(state: SwapState, renewal: Renewal) -> Iterator[str]:
    types = {name for name, _ in renewal.slots}
    for view in state.instances:
        if view.process not in types or (view.process, view.slot) in renewal.slots or view.state == "draining":
            continue
        name = f"{view.process}.{view.slot}"
        if view.state == "exec_failed":
            yield f"{name} cannot start: {view.detail}"
        if view.crash_looping:
            yield f"{name} keeps crashing ({view.restarts} restarts): {view.detail}"


def deadline(state: SwapState, now: Instant) -> Iterator[Milliseconds]:
    """After how long a restart is to be judged again."""
    assignment, renewal = aim(state), state.renewal
    if assignment is not None and renewal is not None and renewal.slots:
        yield assignment.deadline_ms - elapsed_ms(renewal.armed, now)
