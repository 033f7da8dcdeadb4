"""The only clock: CLOCK_BOOTTIME of this boot and the wall, as an `Instant` for decisions and as text for log lines."""

import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from agent.model.units import Instant

SAME_MOMENT_S: Final = 0.02
"""What was looked at no longer ago is looked at once, for all of the hundreds that start then."""


@cache
def boot_id() -> str:
    """Name this boot of the machine; boottimes of another are not compared with this one's."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def now() -> Instant:
    return Instant(boot_id(), time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000, time.time_ns() // 1_000_000)


def timestamp() -> str:
    """The wall's time as log lines carry it: RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
