"""When what is to be called: one timer of the loop for the thousands that the probes of an agent wait for.

A timer of libuv takes more than half a KiB, a place here a third of it; each instance has one for each probe.

Rules: nothing is called before its time, and what was taken back never. Not handled here: who owns what is called.
"""

import asyncio
import heapq
import itertools
import math
import weakref
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 64
"""So many are called before the loop has its turn."""


class Place:
    """Given by `at`."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def cancel(self) -> None:
        self._call = None

    def come(self) -> None:
        """Its time is there."""
        call, self._call = self._call, None
        if call is not None:
            call()


class _Timetable:
    """Of one loop."""

    def __init__(self) -> None:
        self._places: Final[list[tuple[float, int, Place]]] = []
        self._numbers: Final = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._next_s = math.inf

    def put(self, when_s: float, place: Place) -> None:
        heapq.heappush(self._places, (when_s, next(self._numbers), place))
        self._wait()

    def _wait(self) -> None:
        """Be called again when the first of them is due."""
        first_s = self._places[0][0] if self._places else math.inf
        if first_s < self._next_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._next_s = asyncio.get_running_loop().call_at(first_s, self._due), first_s

    def _due(self) -> None:
        now_s, self._timer, self._next_s = asyncio.get_running_loop().time(), None, math.inf
        try:
            for _ in range(AT_ONCE):
                if not self._places or self._places[0][0] > now_s:
                    break
                heapq.heappop(self._places)[2].come()
        finally:
            self._wait()


_timetables: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Timetable]] = weakref.WeakKeyDictionary()


def at(when_s: float, call: Callable[[], object]) -> Place:
    """Have it called then, by the loop's clock; `cancel` takes that back."""
    loop, place = asyncio.get_running_loop(), Place(call)
    found = _timetables.get(loop)
    if found is None:
        found = _timetables[loop] = _Timetable()
    found.put(when_s, place)
    return place


def after(wait_s: float, call: Callable[[], object]) -> Place:
    return at(asyncio.get_running_loop().time() + wait_s, call)
