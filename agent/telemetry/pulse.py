"""A role's pulse: how late its event loop is, and its word to systemd's watchdog that the loop still turns.

Rules: the word comes out of the loop itself, well within the time that systemd allows (sd_watchdog_enabled(3)), so that
a role whose loop hangs is killed and followed by another, which is felt by nobody. It is killed by SIGABRT, and then
says on standard error where it hung. One line of what the role does is told when it has changed. A service manager that
takes no word just now is not waited for: it hears the next.
"""

import faulthandler
import math
import os
from collections.abc import Callable, Mapping
from typing import Final

import anyio

from agent.linux import service
from agent.wire.sdnotify import Notice

BEAT_S: Final = 1.0
LATE_S: Final = 2.0
"""A loop that was so late within the last beats is not well."""
_REMEMBERED: Final = 10


class Pulse:
    """`run` is its owner's task."""

    def __init__(self, lagged: Callable[[float], None], status: Callable[[], str]) -> None:
        self._lagged = lagged
        self._status = status
        self._recent = [0.0] * _REMEMBERED
        self._said = ""

    async def run(self) -> None:
        patience_s = watchdog_s(os.environ, os.getpid())
        beat_s = BEAT_S if patience_s is None else min(BEAT_S, patience_s / 4)
        beats, told_s = 0, -math.inf
        if patience_s is not None:
            faulthandler.enable()
        while True:
            due = anyio.current_time() + beat_s
            await anyio.sleep_until(due)
            late_s = anyio.current_time() - due
            self._lagged(late_s)
            self._recent[beats % _REMEMBERED] = late_s
            beats += 1
            is_due = patience_s is not None and anyio.current_time() - told_s >= patience_s / 4
            if is_due and service.notify(Notice(watchdog="ping"), waits=False):
                told_s = anyio.current_time()
            status = self._status()
            if status != self._said and service.notify(Notice(status=status), waits=False):
                self._said = status

    def fault(self) -> str:
        """Empty while the loop is well; otherwise how late it was."""
        worst_s = max(self._recent)
        return f"it was {worst_s:.1f} s late" if worst_s > LATE_S else ""


def watchdog_s(environ: Mapping[str, str], pid: int) -> float | None:
    """How long systemd waits for a word, in seconds; None where it waits for none, or for another process's."""
    text, whose = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(pid))
    if not text.isdigit() or int(text) == 0 or whose != str(pid):
        return None
    return int(text) / 1_000_000
