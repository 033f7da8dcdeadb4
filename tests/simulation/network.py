"""The link between one coordinator and the machines: connections that break, frames that tarry or come twice."""

import random
from collections.abc import Callable

from agent.model.ids import HostName
from agent.wire import messages
from agent.wire.messages import FromAgent, FromCoordinator
from tests.simulation.clock import Timeline


class Connection:
    """One connection of one host. Frames cross as bytes, in order, unless it has broken; then what was under way is lost."""

    def __init__(self, timeline: Timeline, rng: random.Random, host: HostName) -> None:
        self.timeline, self.rng, self.host = timeline, rng, host
        self.open = True
        self._last = {"up": 0, "down": 0}

    def carry(self, way: str, frame: FromAgent | FromCoordinator, receive: Callable[[bytes], None]) -> None:
        data = messages.encode(frame)
        copies = 2 if self.rng.random() < 0.05 else 1
        for _ in range(copies):
            due = max(self._last[way], self.timeline.now_ms + self.rng.choice((1, 1, 2, 5, 20, 200)))
            self._last[way] = due
            self.timeline.after(due - self.timeline.now_ms, lambda: receive(data) if self.open else None)
