"""Moments in words: whole in details, `2m ago` in tables, and ISO 8601 nowhere but in JSON.

Rules: a moment is milliseconds since 1970, or what a coordinator wrote for one; pure, the present is an argument.
"""

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60))


def in_full(moment_ms: int) -> str:
    """`2026-11-23 12:50:33Z`."""
    return _utc(moment_ms).strftime("%Y-%m-%d %H:%M:%SZ")


def in_day(moment_ms: int) -> str:
    """`12:50:33Z`."""
    return _utc(moment_ms).strftime("%H:%M:%SZ")


def iso(moment_ms: int) -> str:
    """`2026-11-23T12:50:33Z`, for JSON."""
    return _utc(moment_ms).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(moment_ms: int | None, now_ms: int) -> str:
    """`2m ago`; nothing where no moment is known, and `0s ago` where the other clock is ahead of ours."""
    if moment_ms is None:
        return ""
    seconds = max(0, now_ms - moment_ms) // 1000
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"


def read_iso(text: str) -> int | None:
    """The moment that an answer wrote; None where it wrote none, or what cannot be read as one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


def _utc(moment_ms: int) -> datetime:
    return datetime.fromtimestamp(moment_ms // 1000, UTC)
