"""What instances use, measured when somebody asks.

Rules: nothing is measured at rest, and no report carries it: a figure that changes all the time would make every report
a new one, for every host, although hardly anybody looks. So `ps` asks, over the host's socket or over the link, and
hosts that nobody asks pay nothing. One measurement at a time, in a thread; whoever asks again at once gets the same.
"""

from collections.abc import Mapping
from typing import Final

import anyio
from anyio import to_thread
from msgspec import Struct

from agent.linux import clock, usage
from agent.linux.killtree import Tree
from agent.linux.usage import Usage
from agent.model.figures import Figures
from agent.model.units import Instant, Milliseconds
from agent.supervisor.launchable import InstanceKey

FRESH_MS: Final = 1_000
"""So long what was measured is given to whoever asks."""


class Measured(Struct, frozen=True):
    """An instance that runs: how it is known, and since when."""

    tree: Tree
    launched: Instant


class _Look(Struct, frozen=True):
    tree: Tree
    at_ms: Milliseconds
    figures: Figures


class Gauge:
    def __init__(self) -> None:
        self._looks: dict[InstanceKey, _Look] = {}
        self._measuring = anyio.Lock()

    async def read(self, running: Mapping[InstanceKey, Measured]) -> dict[InstanceKey, Figures]:
        """The figures of these. Raises OSError where no descriptor is left to look with."""
        async with self._measuring:
            stale = {key: one.tree for key, one in running.items() if not self._is_fresh(key, one.tree)}
            used = await to_thread.run_sync(usage.measure, stale) if stale else {}
            now_ms = clock.now().boottime_ms
            for key, found in used.items():
                self._looks[key] = _look(running[key], found, now_ms, self._looks.get(key))
            return {key: self._looks[key].figures for key in running}

    def forget(self, key: InstanceKey) -> None:
        self._looks.pop(key, None)

    def _is_fresh(self, key: InstanceKey, tree: Tree) -> bool:
        look = self._looks.get(key)
        return look is not None and look.tree == tree and clock.now().boottime_ms - look.at_ms < FRESH_MS


def _look(one: Measured, used: Usage, now_ms: Milliseconds, before: _Look | None) -> _Look:
    figures = Figures(
        cpu_ms=used.cpu_ms,
        cpu_percent=_percent(one, used, now_ms, before),
        memory_bytes=used.memory_bytes,
        memory_kind=used.memory_kind,
        threads=used.threads,
        open_files=used.open_files,
    )
    return _Look(one.tree, now_ms, figures)


def _percent(one: Measured, used: Usage, now_ms: Milliseconds, before: _Look | None) -> float | None:
    """Without cgroup v2 time goes down where a child ends that nobody waits for: that is no less than nothing."""
    since_ms, spent_ms = one.launched.boottime_ms, 0
    if before is not None and before.tree == one.tree:
        since_ms, spent_ms = before.at_ms, before.figures.cpu_ms
    if now_ms <= since_ms:
        return None
    return round(max(0, used.cpu_ms - spent_ms) * 100 / (now_ms - since_ms), 1)
