"""Time and size as integers: milliseconds and bytes, so that what is signed or stored has one spelling.

`Instant` is the only clock that reaches a decision. Durations inside one boot are differences of `boottime_ms`
(CLOCK_BOOTTIME: counts through suspend, never jumps); across boots or hosts only `wall_ms` is left, with bounded trust.
"""

import re
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

Milliseconds = int
Bytes = int

_DURATION: Final = re.compile(r"(\d+)(ms|s|m|h)")
_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_SIZE: Final = re.compile(r"(\d+)(B|KiB|MiB|GiB|TiB)")
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_LARGEST: Final = 2**53
_LARGER_FROM: Final = 2
"""A larger unit is taken from so many of it on: 90 s, not 1.5 min."""


class Instant(Struct, frozen=True, order=False):
    """A moment as a host saw it: which boot, milliseconds since that boot, milliseconds since 1970 UTC."""

    boot_id: str
    boottime_ms: Milliseconds
    wall_ms: Milliseconds

    def after(self, milliseconds: Milliseconds) -> "Instant":
        return Instant(self.boot_id, self.boottime_ms + milliseconds, self.wall_ms + milliseconds)


def elapsed_ms(since: Instant, now: Instant) -> Milliseconds:
    """Milliseconds of one boot; across boots nothing is known, and nothing has elapsed."""
    return now.boottime_ms - since.boottime_ms if since.boot_id == now.boot_id else 0


def iso(moment_ms: Milliseconds) -> str:
    """A moment of the wall clock as answers carry it: ISO 8601, UTC, milliseconds."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds")


def parse_duration(text: str) -> Milliseconds:
    """Milliseconds of "250ms", "30s", "10m", "2h". Raises ValueError with what was expected."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) * _MS[match[2]] > _LARGEST:
        raise ValueError('a duration such as "250ms", "30s", "10m" or "2h"')
    return int(match[1]) * _MS[match[2]]


def parse_size(text: str) -> Bytes:
    """Bytes of "64KiB", "512MiB", "2GiB". Raises ValueError with what was expected."""
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) * _BYTES[match[2]] > _LARGEST:
        raise ValueError('a size such as "64KiB", "512MiB" or "2GiB"')
    return int(match[1]) * _BYTES[match[2]]


def show_duration(milliseconds: Milliseconds) -> str:
    """The shortest exact spelling that `parse_duration` reads back: how a settings file has it."""
    for unit in ("h", "m", "s"):
        if milliseconds and milliseconds % _MS[unit] == 0:
            return f"{milliseconds // _MS[unit]}{unit}"
    return f"{milliseconds}ms"


def say_duration(milliseconds: Milliseconds) -> str:
    """How long, in a sentence for a person: `250 ms`, `4.4 s`, `10 min`. What must be exact is a number of its own."""
    if 0 < milliseconds < _MS["s"]:
        return f"{milliseconds} ms"
    for unit, word in (("h", "h"), ("m", "min")):
        if round(milliseconds / _MS[unit], 1) >= _LARGER_FROM:
            return f"{round(milliseconds / _MS[unit], 1):g} {word}"
    return f"{round(milliseconds / _MS['s'], 1):g} s"
