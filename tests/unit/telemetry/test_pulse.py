"""Whose watchdog it is, and how long it waits: sd_watchdog_enabled(3)."""

import pytest

from agent.telemetry.pulse import watchdog_s

OURS = 7

CASES: dict[str, tuple[dict[str, str], float | None]] = {
    "none": ({}, None),
    "for whoever is started": ({"WATCHDOG_USEC": "30000000"}, 30.0),
    "ours": ({"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "7"}, 0.4),
    "another process's": ({"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "8"}, None),
    "of nobody": ({"WATCHDOG_USEC": "400000", "WATCHDOG_PID": ""}, None),
    "switched off": ({"WATCHDOG_USEC": "0"}, None),
    "no number": ({"WATCHDOG_USEC": "soon"}, None),
    "below zero": ({"WATCHDOG_USEC": "-1"}, None),
}


@pytest.mark.parametrize(("environ", "patience_s"), CASES.values(), ids=CASES.keys())
def test_a_watchdog_is_answered_only_where_it_waits_for_us(environ: dict[str, str], patience_s: float | None) -> None:
    """A word to a watchdog that waits for another process would hide that one's hang."""
    assert watchdog_s(environ, OURS) == patience_s
