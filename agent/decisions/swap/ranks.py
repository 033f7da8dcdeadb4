"""In which order instances stop: ranks of starting, reversed, so that nothing stops while somebody still needs it.

Whom an instance starts after is what its own release says: another may be assigned by now, none, or one that does not
lie on the host yet.
"""

from collections.abc import Iterable

from agent.decisions.swap import hand
from agent.decisions.swap.hand import Place
from agent.decisions.swap.slots import leave_first
from agent.decisions.swap.state import InstanceView, SwapState
from agent.model.ids import ProcessName


def in_turn(state: SwapState, views: Iterable[InstanceView]) -> set[Place]:
    """Of instances that are all to stop, those whose turn it is; whoever drains is still waited for."""
    views = list(views)
    after: dict[ProcessName, tuple[ProcessName, ...]] = {}
    for view in views:
        after[view.process] = (*after.get(view.process, ()), *_after(state, view))
    return {(view.process, view.slot) for view in views if view.process in leave_first(after)}


def halted(state: SwapState) -> list[InstanceView]:
    """Those that a person has stopped, as long as anything is left of them."""
    places = hand.emptied(state)
    return [view for view in state.instances if (view.process, view.slot) in places] if places else []


def _after(state: SwapState, view: InstanceView) -> tuple[ProcessName, ...]:
    process = view.type or (state.spec.process(view.process) if state.spec else None)
    return process.after if process is not None else ()
