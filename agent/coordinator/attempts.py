"""How often an address may show a wrong secret: a guesser gets a few tries a minute, and costs next to nothing.

The secrets have 256 bits, so this protects the coordinator's time and its log, not the secrets.
"""

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from agent.errors import RefusedError
from agent.linux import clock
from agent.model.units import Milliseconds

WRONG_MAX: Final = 10
WINDOW_MS: Final = 60_000
ADDRESSES_MAX: Final = 1_024


class _Count(Struct):
    since_ms: Milliseconds
    wrong: int = 0


class Attempts:
    """Wrong tries by address, for a minute each; of too many addresses the oldest are forgotten."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises RefusedError when there were too many."""
        count = self._counts.get(address)
        if count is not None and clock.now().boottime_ms - count.since_ms >= WINDOW_MS:
            del self._counts[address]
        elif count is not None and count.wrong >= WRONG_MAX:
            raise RefusedError("too many wrong tokens came from this address", "Try again in a minute.")

    def wrong(self, address: str) -> None:
        count = self._counts.setdefault(address, _Count(since_ms=clock.now().boottime_ms))
        count.wrong += 1
        if len(self._counts) > ADDRESSES_MAX:
            self._counts.popitem(last=False)
