"""Tables and moments: what a person gets on 80 columns, and what a script gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.moments import ago, in_day, in_full, iso, read_iso
from agent.cli.output import quoted, table, words

NOW_MS = 1_765_276_200_000  # 2025-12-09 10:30 UTC
COLUMNS = ("ID", "STATE", "WHY")
WHY = "h1 failed: web.1 is not ready within 10s: GET /healthz answered 503"
ROWS = [("r-0123456789", "rolled back", WHY), ("r-9876543210", "done", None)]

AGO = {
    "now": (0, "0s ago"),
    "a clock that is behind": (-5_000, "0s ago"),
    "seconds": (59_999, "59s ago"),
    "minutes": (125_000, "2m ago"),
    "hours": (3 * 3_600_000, "3h ago"),
    "days": (50 * 3_600_000, "2d ago"),
}


@pytest.mark.parametrize("case", AGO)
def test_a_table_says_how_long_ago(case: str) -> None:
    """Nobody has to subtract clocks to see that it was just now."""
    before_ms, text = AGO[case]
    assert ago(NOW_MS - before_ms, NOW_MS) == text


def test_a_moment_has_one_form_for_each_place() -> None:
    """Details are whole, lines of a pipe have the time of day, JSON has ISO 8601."""
    assert in_full(NOW_MS) == "2025-12-09 10:30:00Z"
    assert in_day(NOW_MS) == "10:30:00Z"
    assert read_iso(iso(NOW_MS)) == NOW_MS
    assert read_iso("2025-12-09T10:30:00.000+00:00") == NOW_MS
    assert read_iso("") is None
    assert ago(None, NOW_MS) == ""


def test_what_does_not_fit_goes_below_its_row() -> None:
    """On 60 columns the reason stands under the rollout that it belongs to, and ids stay whole."""
    assert list(table(COLUMNS, ROWS, 60)) == [
        "ID            STATE",
        "r-0123456789  rolled back",
        "    why: h1 failed: web.1 is not ready within 10s: GET",
        "      /healthz answered 503",
        "r-9876543210  done",
    ]


def test_a_pipe_gets_one_line_a_row_however_wide() -> None:
    """`awk` finds every cell in its place."""
    header, first, second = table(COLUMNS, ROWS, None)
    assert header.split() == list(COLUMNS)
    assert first.endswith(WHY)
    assert second.split() == ["r-9876543210", "done", "-"]


@given(
    st.lists(st.lists(st.text("ab ", max_size=60), min_size=4, max_size=4), max_size=4),
    st.integers(40, 120),
)
def test_no_line_is_wider_than_the_terminal(rows: list[list[str]], width: int) -> None:
    """Whatever the rows are, the terminal need not wrap them; the first column alone always stays."""
    short = [[row[0][:20], *row[1:]] for row in rows]
    assert all(len(line) <= width for line in table(("A", "B", "C", "D"), short, width))


def test_a_value_of_several_lines_is_shown_on_one() -> None:
    """A list of variables keeps one line each; plain values stay as they are."""
    assert quoted("a b") == "a b"
    assert quoted('one\n"two"') == r'"one\n\"two\""'


def test_a_state_is_read_without_its_underscore() -> None:
    """Scripts see `rolled_back`, persons see it in words."""
    assert words("rolling_back") == "rolling back"


def test_empty_columns_are_the_first_to_go() -> None:
    """What no row has anything in needs no room of a narrow terminal."""
    rows = [("h1", "a longer reason than others", None), ("h2", "-", None)]
    assert list(table(("HOST", "WHY", "DETAIL"), rows, 36)) == [
        "HOST  WHY",
        "h1    a longer reason than others",
        "h2    -",
    ]
