"""Tries whether a driver and its balancer do what a rollout relies on, with one server of the caller's.

Rules: every step has its time; after the first that fails the server is removed, and that is all. It looks at nothing
but what the driver tells. Not handled here: whether users really get no errors, which takes users.
"""

from collections.abc import AsyncIterator
from typing import Final

import anyio
from msgspec import Struct
from msgspec.structs import replace

from agent.model.balancer import Reach, Standing, Wanted, Wish
from agent.model.units import Milliseconds
from agent.traffic.driver import Driver

STEP_WITHIN_S: Final = 5.0


class Changes:
    """Woken by a driver at each change of what it tells."""

    def __init__(self) -> None:
        self._changed = anyio.Event()

    def tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self) -> None:
        await self._changed.wait()


class Tried(Struct, frozen=True, kw_only=True):
    """One step: what was wished, how it ended, how long it took."""

    step: str
    well: bool
    found: str
    took_ms: Milliseconds


_STEPS: Final[tuple[tuple[str, bool | None, Reach], ...]] = (
    ("admit", True, "admitted"),
    ("drain", False, "drained"),
    ("admit again", True, "admitted"),
    ("drain again", False, "drained"),
    ("remove", None, "gone"),
)
"""What it is called, whether the server is wished in, out, or away, and what is to come of it."""


async def trial(driver: Driver, changes: Changes, server: Wanted, drain_ms: Milliseconds) -> AsyncIterator[Tried]:
    """Give each step as it ends. The driver runs meanwhile, and tells `changes`."""
    failed = False
    for step, admitted, expected in _STEPS:
        if failed and expected != "gone":
            continue
        within_s = STEP_WITHIN_S + (0 if admitted else drain_ms / 1000)
        began_s = anyio.current_time()
        wanted = () if admitted is None else (replace(server, admitted=admitted),)
        driver.wish(Wish(servers=wanted, drain_ms=drain_ms))
        standing = await _settled(driver, changes, server.name, expected, within_s)
        failed |= standing.state != expected
        yield Tried(
            step=step,
            well=standing.state == expected,
            found=f"{standing.state}: {standing.detail}" if standing.detail else standing.state,
            took_ms=round((anyio.current_time() - began_s) * 1000),
        )


async def _settled(driver: Driver, changes: Changes, server: str, expected: Reach, within_s: float) -> Standing:
    """What stands when it is as expected, or the time is over."""
    admitted = expected == "admitted"
    with anyio.move_on_after(within_s):
        while driver.standing(server, admitted=admitted).state != expected:
            await changes.wait()
    return driver.standing(server, admitted=admitted)
