"""The inbox of one swap actor: bounded without ever refusing, because its events are levels and the newest one counts.

Rules: of each kind at most one waits, a newer one takes the place of the older; answers (`Prepared`, `AdminEnded`) are
one per release and rollout that is in hand, so their number is bounded by the actions that asked for them. What persons
ask for waits each for itself; who asked waits along, so their number is that of the connections.
"""

import anyio

from agent.decisions.swap.state import (
    AdminEnded,
    Assigned,
    ByHand,
    Drain,
    Observed,
    PinAsked,
    Prepared,
    SwapEvent,
    Undrain,
)
from agent.errors import RollwayError


class Answer:
    """What becomes of a person's wish."""

    def __init__(self) -> None:
        self.given = anyio.Event()
        self.error: RollwayError | None = None


class Inbox:
    def __init__(self) -> None:
        self._waiting: dict[object, SwapEvent] = {}
        self._filled = anyio.Event()

    def put(self, event: SwapEvent) -> None:
        where = place(event)
        if isinstance(event, Assigned) and _is_newer(self._waiting.get(where), event):
            return
        self._waiting[where] = event
        self._filled.set()

    async def take(self) -> SwapEvent:
        """The event that waits longest."""
        while not self._waiting:
            self._filled = anyio.Event()
            await self._filled.wait()
        return self._waiting.pop(next(iter(self._waiting)))


def place(event: SwapEvent) -> object:
    """Where it waits: a newer event in the same place takes that of the older."""
    if isinstance(event, Observed):  # by far the most
        return Observed
    if isinstance(event, Prepared):
        return event.release
    if isinstance(event, AdminEnded):
        return event.report.rollout
    if isinstance(event, Drain | Undrain):
        return Drain
    if isinstance(event, PinAsked):
        return type(event), event.release
    return event if isinstance(event, ByHand) else type(event)


def _is_newer(waiting: SwapEvent | None, event: Assigned) -> bool:
    if not isinstance(waiting, Assigned):
        return False
    ours, theirs = waiting.assignment, event.assignment
    return (ours.epoch, ours.generation) > (theirs.epoch, theirs.generation)
