"""Virtual time: a heap of things to happen, and a clock that jumps from each to the next."""

import heapq
from collections.abc import Callable
from itertools import count


class Timeline:
    """`now_ms` counts from the beginning of the world; nothing happens between two entries."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.happened = 0
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._order = count()

    def after(self, delay_ms: int, happen: Callable[[], object]) -> None:
        heapq.heappush(self._heap, (self.now_ms + max(0, delay_ms), next(self._order), happen))

    def next(self, end_ms: int) -> bool:
        """Let the next thing happen; False, at `end_ms`, when nothing is due until then."""
        if not self._heap or self._heap[0][0] > end_ms:
            self.now_ms = end_ms
            return False
        self.now_ms, _, happen = heapq.heappop(self._heap)
        self.happened += 1
        happen()
        return True
