"""One process type on one host: which slots to launch, which to stop, so that never fewer are ready than before.

Pure functions of what is wanted and what the supervisor sees. "New" is an instance of the assigned release, whichever
side of a swap that is: going back to stable keeps every instance of stable that still runs.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from agent.decisions.swap.state import InstanceView
from agent.model.assignment import InstanceState
from agent.model.ids import ProcessName, ReleaseName
from agent.model.process import ProcessType

LIVE: Final[frozenset[InstanceState]] = frozenset({"starting", "ready", "unready", "backoff", "exec_failed"})
Slots = frozenset[int]
_BEST_FIRST: Final[dict[InstanceState, int]] = {"ready": 0, "unready": 1, "starting": 2, "backoff": 3, "exec_failed": 4}


class TypePlan(Struct, frozen=True, kw_only=True):
    launch: tuple[int, ...] = ()
    stop: tuple[int, ...] = ()
    complete: bool = False
    """As many new instances as wanted are ready, and no old one is left that was not asked to stop."""


def plan_type(
    process: ProcessType,
    wanted: int,
    release: ReleaseName,
    instances: tuple[InstanceView, ...],
    *,
    may_launch: bool,
    halted: Slots = frozenset(),
    renewed: Slots = frozenset(),
) -> TypePlan:
    """What to do now for one type. `instances` are its own only; `may_launch` is False while its rank has to wait.

    Places of `halted` are emptied and stay empty; instances in places of `renewed` are old, whatever their release.
    """
    stopped_by_hand = [view.slot for view in instances if view.slot in halted and view.state in LIVE]
    wanted = max(0, wanted - len(halted))
    instances = tuple(view for view in instances if view.slot not in halted or view.state == "draining")
    live = [view for view in instances if view.state in LIVE]
    new = _best_first([view for view in live if view.release == release and view.slot not in renewed])
    old = _best_first([view for view in live if view.release != release or view.slot in renewed])
    surplus = new[wanted:]
    new = new[:wanted]
    ready = sum(view.state == "ready" for view in new)
    missing = wanted - len(new) - sum(has_ended(view) and view.slot not in renewed for view in instances)
    if process.swap == "start-first":
        started, retired = _start_first(process, wanted, new, old)
    elif may_launch:
        leaving = sum(view.state == "draining" for view in instances)
        started, retired = _stop_first(process, wanted, new, old, leaving)
    else:
        started, retired = 0, []  # what is stopped first could not be replaced yet
    taken = halted.union(view.slot for view in instances)
    launch = _free_slots(taken, min(started, missing)) if may_launch else ()
    return TypePlan(
        launch=launch,
        stop=tuple(sorted([*stopped_by_hand, *(view.slot for view in [*surplus, *retired])])),
        complete=ready == wanted and len(retired) == len(old),
    )


def _start_first(
    process: ProcessType, wanted: int, new: list[InstanceView], old: list[InstanceView]
) -> tuple[int, list[InstanceView]]:
    """New ones beside the old, `surge` at a time; an old one goes only when a ready new one stands in for it."""
    ready = sum(view.state == "ready" for view in new)
    unready = len(new) - ready
    started = max(0, process.surge - unready) if old else wanted
    return started, old[max(0, wanted - ready) :]


def _stop_first(
    process: ProcessType, wanted: int, new: list[InstanceView], old: list[InstanceView], leaving: int
) -> tuple[int, list[InstanceView]]:
    """Never two at once: a new one starts only when an old one is quite gone."""
    started = wanted - len(new) - len(old) - leaving
    unfinished = leaving + sum(view.state != "ready" for view in new) + max(0, started)
    may_stop = max(0, process.surge - unfinished)
    if len(old) > wanted - len(new):
        may_stop = max(may_stop, len(old) + len(new) - wanted)
    return max(0, started), old[max(0, len(old) - may_stop) :] if may_stop else []


def leave_first(after: Mapping[ProcessName, tuple[ProcessName, ...]]) -> frozenset[ProcessName]:
    """Of types that are there, each with those that it starts after: which stop first. Starting, reversed."""
    needed = {name for names in after.values() for name in names}
    return frozenset(
        after.keys() - needed or after
    )  # settings refuse cycles; a cycle must not hang a host all the same


def has_ended(view: InstanceView) -> bool:
    """Whether it ended by itself and its restart policy leaves it so: nothing takes its place until it is forgotten."""
    return view.state == "stopped" and view.detail != ""


def why_never_ready(views: Iterable[InstanceView]) -> str:
    """Of the first for which waiting is in vain, why; empty where all may become ready, or are."""
    for view in views:
        if view.state == "exec_failed":
            return f"{view.process}.{view.slot} cannot start: {view.detail}"
        if has_ended(view):
            return f"{view.process}.{view.slot} has ended, and its restart policy leaves it so: {view.detail}"
        if view.crash_looping:
            return f"{view.process}.{view.slot} keeps crashing ({view.restarts} restarts): {view.detail}"
    return ""


def _best_first(views: list[InstanceView]) -> list[InstanceView]:
    return sorted(views, key=lambda view: (_BEST_FIRST[view.state], view.slot))


def _free_slots(taken: Slots, count: int) -> tuple[int, ...]:
    free: list[int] = []
    slot = 1
    while len(free) < count:
        if slot not in taken:
            free.append(slot)
        slot += 1
    return tuple(free)
