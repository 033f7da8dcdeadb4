"""New counts for what runs already: more instances are started, surplus is drained, and nothing else is touched.

Rules: an assignment that differs in its counts alone from one that has been reached is no swap. Only the types whose
counts it changes are judged; their failure is told and gives nothing up: the instances are tried on, and once all run
it is done after all. Places that a person has stopped, or whose instances have ended by themselves, count as taken; of
too many they are the first to go, since nobody misses them, then those that are not ready, then the highest slots.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from agent.decisions.swap import hand
from agent.decisions.swap.hand import Place
from agent.decisions.swap.slots import LIVE, TypePlan, has_ended, why_never_ready
from agent.decisions.swap.state import InstanceView, Scaling, SwapState
from agent.model.assignment import Assignment
from agent.model.ids import ProcessName
from agent.model.units import Instant, Milliseconds, elapsed_ms, say_duration


def types(state: SwapState, assignment: Assignment) -> tuple[ProcessName, ...]:
    """Whose counts `assignment` changes, and nothing else; none where it asks for more than that, or for nothing."""
    held = state.assignment
    at_rest = state.phase == "done" or state.scaling is not None
    if held is None or held.release is None or not at_rest or state.pin is not None:
        return ()
    as_held = replace(assignment, epoch=held.epoch, generation=held.generation, counts=held.counts)
    if replace(as_held, environment_key=held.environment_key) != held:
        return ()
    names = held.counts.keys() | assignment.counts.keys()
    return tuple(sorted(name for name in names if held.counts.get(name) != assignment.counts.get(name)))


def taken(state: SwapState, assignment: Assignment, names: tuple[ProcessName, ...], now: Instant) -> SwapState:
    """The state with the new counts of `names` in it."""
    going_on = state.scaling.types if state.scaling is not None else ()
    return replace(
        state,
        assignment=assignment,
        scaling=Scaling(types=tuple(sorted({*going_on, *names})), asked=now),
        phase="swapping",
        reason="",
        armed=now,
        done_instances=0,
        all_ready_since=None,
    )


def count(state: SwapState, name: ProcessName) -> int:
    """How many of a type are to run here; 1 where that is not known yet."""
    assignment, process = hand.aim(state), state.spec.process(name) if state.spec is not None else None
    declared = process.count if process is not None else 1
    return declared if assignment is None else assignment.counts.get(name, declared)


class _Type(Struct, frozen=True):
    """Where one type that is scaled is."""

    wanted: int
    """How many are to run, beside places that a person has stopped."""
    running: tuple[InstanceView, ...]
    """Those that count, however well they run."""
    ended: tuple[InstanceView, ...]
    """Those that have ended by themselves, to stay so."""


def _types(state: SwapState, assignment: Assignment) -> dict[ProcessName, _Type]:
    release = assignment.release.name if assignment.release is not None else None
    found: dict[ProcessName, _Type] = {}
    for name in state.scaling.types if state.scaling is not None else ():
        halted, renewed = hand.halted(state, name), hand.renewed(state, name)
        own = [view for view in state.instances if (view.process, view.release) == (name, release)]
        found[name] = _Type(
            wanted=count(state, name) - len(halted),
            running=tuple(view for view in own if view.state in LIVE and view.slot not in halted | renewed),
            ended=tuple(sorted((view for view in own if has_ended(view)), key=lambda view: view.slot)),
        )
    return found


def without_surplus_halts(state: SwapState, assignment: Assignment) -> SwapState:
    """Of places that a person has stopped, so many as there is room for beside what runs; the lowest stay."""
    dropped: set[Place] = set()
    for name, found in _types(state, assignment).items():
        halted = sorted(hand.halted(state, name))
        room = max(0, found.wanted + len(halted) - len(found.running))
        dropped |= {(name, slot) for slot in halted[room:]}
    if not dropped:
        return state
    return replace(state, halts=tuple(halt for halt in state.halts if (halt.process, halt.slot) not in dropped))


def surplus_ended(state: SwapState, assignment: Assignment) -> set[Place]:
    """Places whose instances have ended by themselves and that are not wanted any more."""
    surplus: set[Place] = set()
    for name, found in _types(state, assignment).items():
        room = max(0, found.wanted - len(found.running))
        surplus |= {(name, view.slot) for view in found.ended[room:]}
    return surplus


def judged(state: SwapState, plans: Mapping[ProcessName, TypePlan], assignment: Assignment, now: Instant) -> SwapState:
    """How far it is. What has long been ready was judged when it was started: only fresh instances have to settle."""
    scaled = _types(state, assignment)
    stops = {(name, slot) for name in scaled if name in plans for slot in plans[name].stop}
    ready = [view for found in scaled.values() for view in found.running if view.state == "ready"]
    fresh_ends = [view for found in scaled.values() for view in found.ended if _is_fresh(state, view)]
    if not fresh_ends and all(_is_reached(found) for found in scaled.values()):
        since = max((view.since for view in ready if view.since.boot_id == now.boot_id), key=_moment, default=None)
        leaves = stops or any(view.state == "draining" and view.process in scaled for view in state.instances)
        if not leaves and (since is None or elapsed_ms(since, now) >= assignment.min_ready_ms):
            return replace(state, phase="done", reason="", scaling=None, all_ready_since=since)
        return replace(state, phase="settling", reason="", all_ready_since=since)
    if len(ready) > state.done_instances:
        state = replace(state, armed=now, done_instances=len(ready))
    staying = [view for found in scaled.values() for view in found.running if (view.process, view.slot) not in stops]
    reason = why_never_ready([*staying, *fresh_ends]) or _late(state, staying, assignment, now)
    if reason or state.phase == "failed":
        return replace(state, phase="failed", reason=reason or state.reason, all_ready_since=None)
    return replace(state, phase="swapping", all_ready_since=None)


def _is_reached(found: _Type) -> bool:
    return sum(view.state == "ready" for view in found.running) + len(found.ended) >= found.wanted


def _is_fresh(state: SwapState, view: InstanceView) -> bool:
    asked = state.scaling.asked if state.scaling is not None else view.launched
    return view.launched.boot_id != asked.boot_id or view.launched.boottime_ms >= asked.boottime_ms


def _moment(instant: Instant) -> Milliseconds:
    return instant.boottime_ms


def _late(state: SwapState, views: list[InstanceView], assignment: Assignment, now: Instant) -> str:
    if state.armed is None or elapsed_ms(state.armed, now) < assignment.deadline_ms:
        return ""
    late = next((view for view in views if view.state != "ready"), None)
    who = "it starts after types that are not ready"
    if late is not None:
        who = f"{late.process}.{late.slot} is {late.state}: {late.detail}"
    return f"not ready within {say_duration(assignment.deadline_ms)}: {who}"
