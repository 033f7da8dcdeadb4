"""Durations: as people read them, and as settings spell them."""

import pytest

from agent.model.units import parse_duration, say_duration, show_duration

SAID = {
    "nothing": (0, "0 s"),
    "parts of a second": (250, "250 ms"),
    "just under a second": (999, "999 ms"),
    "a second": (1_000, "1 s"),
    "what jitter made of four seconds": (4_396, "4.4 s"),
    "a backoff at its largest": (74_812, "74.8 s"),
    "a minute and a half": (90_000, "90 s"),
    "what rounds up to two minutes": (119_990, "2 min"),
    "a deadline": (600_000, "10 min"),
    "minutes and a half": (450_000, "7.5 min"),
    "what rounds up to two hours": (7_199_999, "2 h"),
    "hours": (3 * 3_600_000, "3 h"),
}


@pytest.mark.parametrize(("milliseconds", "said"), SAID.values(), ids=SAID)
def test_a_duration_in_a_sentence(milliseconds: int, said: str) -> None:
    """A sentence says how long in the unit and with the digits that a person needs."""
    assert say_duration(milliseconds) == said


@pytest.mark.parametrize("text", ["4396ms", "90s", "7m", "3h"])
def test_a_setting_is_shown_as_it_may_be_written(text: str) -> None:
    """What quotes a setting spells it so that a settings file takes it."""
    assert show_duration(parse_duration(text)) == text
