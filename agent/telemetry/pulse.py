"""The pulse of a role's event loop: how late it is, measured all the time, and the watchdog that asks after it.

A task of the loop sleeps for a moment, again and again, and sees how much later than it asked it goes on: so late does
everything else on this loop. From there alone the service manager is told that the role lives (WATCHDOG_USEC of
sd_watchdog_enabled(3), at half the interval): a loop that is stuck says nothing and is restarted. What it was stuck in
is on standard error then, for the manager ends it by SIGABRT.
"""

import faulthandler
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

import anyio
from prometheus_client import Histogram

from agent.linux import service
from agent.wire.sdnotify import Notice

BEAT_S: Final = 0.5
_BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Pulse:
    """`run` is its owner's task. `status` says in one line what the role does; a change of it is told."""

    def __init__(self, status: Callable[[], str], environ: Mapping[str, str] = os.environ) -> None:
        self.lag: Final = Histogram(
            "rollway_loop_lag_seconds",
            "How much later than due the event loop got to what it was to do.",
            buckets=_BUCKETS_S,
            registry=None,
        )
        self._status: Final = status
        self._told = ""
        self._interval_s: Final = _watchdog_s(environ)
        self._beat_s: Final = min(BEAT_S, self._interval_s / 2) if self._interval_s else BEAT_S

    async def run(self) -> None:
        """Beat, until cancelled."""
        if self._interval_s:
            faulthandler.enable()
        pinged_s = float("-inf")
        while True:
            now_s = time.monotonic()
            if self._interval_s and now_s - pinged_s >= self._interval_s / 2 - self._beat_s / 2:
                service.notify(Notice(watchdog="ping"))
                pinged_s = now_s
            self._tell()
            await anyio.sleep(self._beat_s)
            self.lag.observe(max(0.0, time.monotonic() - now_s - self._beat_s))

    def _tell(self) -> None:
        status = self._status()
        if status != self._told:
            self._told = status
            service.notify(Notice(status=status))


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """After how long without a word the service manager restarts this process; 0: never."""
    interval, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not interval.isdigit() or pid not in ("", str(os.getpid())):
        return 0.0
    return int(interval) / 1_000_000
