"""The link between a coordinator and its hosts: connections break, frames tarry, come twice, or come too late."""

import random
from collections.abc import Callable
from typing import Literal

from agent.wire import messages
from agent.wire.messages import FromAgent, FromCoordinator
from tests.simulation.clock import Timeline

LATE_MS_MAX = 3_000


class Connection:
    """One connection of one host. Frames cross as bytes and in order, but now and then a copy comes late.

    Of those under way when it breaks some are lost and some come late too, perhaps after the next connection's own.
    """

    def __init__(self, timeline: Timeline, rng: random.Random) -> None:
        self._timeline, self._rng = timeline, rng
        self._last = {"up": 0, "down": 0}
        self.open = True

    def carry(
        self, way: Literal["up", "down"], frame: FromAgent | FromCoordinator, receive: Callable[[bytes], None]
    ) -> None:
        data = messages.encode(frame)
        tarries_ms = self._rng.choice((1, 1, 2, 5, 20, 200))
        self._last[way] = max(self._last[way], self._timeline.now_ms + tarries_ms)
        self._timeline.after(self._last[way] - self._timeline.now_ms, lambda: self._arrive(data, receive))
        if self._rng.random() < 0.05:
            self._timeline.after(self._rng.randint(1, LATE_MS_MAX), lambda: self._arrive(data, receive))

    def _arrive(self, data: bytes, receive: Callable[[bytes], None]) -> None:
        if self.open:
            receive(data)
        elif self._rng.random() < 0.5:
            self._timeline.after(self._rng.randint(0, LATE_MS_MAX), lambda: receive(data))
