"""Which assignments a host accepts: newer than what it holds, and allowed by an order that is not older than the last.

A host believes the order, not the coordinator: it runs the order's release or, as the way back, the one it replaces.
"""

from collections.abc import Iterator

from agent.decisions.swap.state import Assigned, SwapState
from agent.model.assignment import Assignment, ReleaseRef
from agent.model.release import Order


def refusal(state: SwapState, event: Assigned) -> str:
    """Why the assignment is not accepted; empty when it is."""
    assignment, held = event.assignment, state.assignment
    if held is not None:
        if assignment.epoch < held.epoch:
            return f"epoch {assignment.epoch} is over: epoch {held.epoch} has been seen"
        if assignment.epoch == held.epoch and assignment.generation < held.generation:
            return f"generation {assignment.generation} is older than {held.generation}, which is held"
    return _not_ordered(state, assignment, event.order)


def _not_ordered(state: SwapState, assignment: Assignment, order: Order | None) -> str:
    """Why the order does not allow what is to run: a release, the release command. To run nothing needs no order."""
    wanted = assignment.release or (assignment.admin.release if assignment.admin else None)
    if wanted is None:
        return ""
    if order is None:
        return f"no order allows release {wanted.name}"
    if (order.app, order.environment) != (assignment.app, assignment.environment):
        return f"the order is for {order.app} in {order.environment}"
    if order.sequence < state.sequence:
        return f"order {order.sequence} is older than order {state.sequence}, which was accepted here"
    if assignment.release is not None and assignment.release not in _allowed(order):
        return f"order {order.sequence} does not allow release {assignment.release.name}"
    if assignment.admin is not None and assignment.admin.release != _ordered(order):
        return f"order {order.sequence} does not allow the release command of {assignment.admin.release.name}"
    return ""


def _ordered(order: Order) -> ReleaseRef:
    return ReleaseRef(name=order.release, digest=order.release_digest)


def _allowed(order: Order) -> Iterator[ReleaseRef]:
    yield _ordered(order)
    if order.replaces is not None and order.replaces_digest is not None:
        yield ReleaseRef(name=order.replaces, digest=order.replaces_digest)


def returns_to_stable(state: SwapState) -> bool:
    """Whether this is the way back to stable, or what a person pinned, or what runs already: that is never given up."""
    if state.pin is not None or state.scaling:
        return True
    order, assignment = state.order, state.assignment
    if order is None or assignment is None:
        return False
    return order.kind == "rollback" or assignment.release != _ordered(order)
