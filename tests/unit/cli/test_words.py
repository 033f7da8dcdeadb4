"""What the command line says and how it ends, without a coordinator."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.by_hand import in_line
from agent.cli.changes import Lines
from agent.cli.draft import free_name
from agent.cli.progress import ending, exit_code
from agent.cli.records import printable
from agent.cli.status import ready, state
from agent.client.answers import AppStatus, RolloutHost, RolloutMigration, RolloutShown
from agent.local.load import percentiles
from agent.model.ids import AppName, EnvironmentName, HostName, ReleaseName, is_release_name

NOW_S = 1_765_276_200  # 2025-12-09 10:30 UTC

NAMES = {
    "a version gives its name": ("1.2.3", set(), "v1.2.3"),
    "a version with its v gives the same": ("v1.2.3", set(), "v1.2.3"),
    "a version with more to it gives the minute": ("1.2.3-rc1", set(), "release-2025-12-09-10-30"),
    "no version gives the minute": ("0.0.0+4f2a9c1", set(), "release-2025-12-09-10-30"),
    "a taken version gives the minute": ("1.2.3", {"v1.2.3"}, "release-2025-12-09-10-30"),
    "a second one in the minute gets a number": (
        "",
        {"release-2025-12-09-10-30"},
        "release-2025-12-09-10-30-2",
    ),
    "a third one in the minute gets the next": (
        "",
        {"release-2025-12-09-10-30", "release-2025-12-09-10-30-2"},
        "release-2025-12-09-10-30-3",
    ),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_release_is_named_by_its_version_else_by_the_minute(case: str) -> None:
    """Nobody has to invent a name, and no name is given twice."""
    version, taken, name = NAMES[case]
    assert free_name(version, NOW_S, taken) == name


@given(st.text(max_size=80), st.integers(0, 2**33))
def test_every_name_that_is_made_up_is_allowed(version: str, now_s: int) -> None:
    """Whatever the version is, the name can be used everywhere."""
    assert is_release_name(free_name(version, now_s, set()))


def rollout(**fields: object) -> RolloutShown:
    shown = {
        "id": "r-1",
        "app": "shop",
        "environment": "local",
        "release": "v2",
        "previous": "v1",
        "strategy": "rolling",
        "state": "running",
    }
    return RolloutShown(**(shown | fields))  # type: ignore[arg-type]  # a table of fields


CODES = {
    "done": (rollout(state="done"), False, 0),
    "done with stragglers": (rollout(state="done", stragglers=("h3",)), False, 0),
    "done with stragglers, strictly": (rollout(state="done", stragglers=("h3",)), True, 1),
    "failed": (rollout(state="failed"), False, 1),
    "rolled back": (rollout(state="rolled_back"), False, 3),
    "aborted": (rollout(state="aborted"), False, 3),
    "superseded": (rollout(state="superseded"), False, 1),
}


@pytest.mark.parametrize("case", CODES)
def test_the_exit_code_says_how_a_rollout_ended(case: str) -> None:
    """A script knows from the exit code alone whether the new release runs, or stable again."""
    shown, strict, code = CODES[case]
    assert exit_code(shown, strict=strict) == code


def test_a_pipe_gets_one_line_per_change() -> None:
    """What did not change is not said again."""
    lines = Lines()
    first = rollout(hosts=(RolloutHost("h1", "swapping"), RolloutHost("h2", "waiting")))  # type: ignore[arg-type]
    second = rollout(hosts=(RolloutHost("h1", "done"), RolloutHost("h2", "waiting")))  # type: ignore[arg-type]
    assert list(lines.changes(first)) == ["rollout r-1: running", "h1: swapping", "h2: waiting"]
    assert list(lines.changes(second)) == ["h1: done"]
    assert list(lines.changes(second)) == []


def test_a_failed_migration_is_shown_with_its_output() -> None:
    """One need not look for why nothing was swapped."""
    migration = RolloutMigration("h1", "failed", 1, "no such table\nsorry")  # type: ignore[arg-type]
    text = "\n".join(ending(rollout(state="failed", reason="the release command failed", migration=migration)))
    assert "shop local: v2 failed: the release command failed" in text
    assert "on h1 ended with exit code 1" in text
    assert "  no such table\n  sorry" in text


def test_a_failed_migration_cannot_write_to_the_terminal() -> None:
    """What a command wrote is shown without what a terminal would obey, and no code is made up where there is none."""
    migration = RolloutMigration("h1", "failed", None, "\x1b[2Jgone\nended at its timeout")  # type: ignore[arg-type]
    text = "\n".join(ending(rollout(state="failed", migration=migration)))
    assert "\x1b" not in text
    assert "on h1 failed:" in text
    assert "None" not in text


def test_hosts_that_were_not_reached_are_named() -> None:
    """A swap that is done may not be done everywhere, and says so."""
    assert "h3" in list(ending(rollout(state="done", stragglers=("h3",))))[-1]


RECORDS = {
    "a line of text": (
        b'{"ts":"2026-11-23T12:16:39.144183Z","host":"h1","instance":"web.1","app":"a","pid":7,"message":"hello"}',
        "12:16:39.144 h1 web.1 hello",
    ),
    "a JSON line of the app": (
        b'{"ts":"2026-11-23T12:16:39.144183Z","instance":"web.1","path":"/","status":200}',
        "12:16:39.144 web.1 path=/ status=200",
    ),
    "no record at all": (b"what\x1b[31m", "what\N{REPLACEMENT CHARACTER}[31m"),
}


def shown(line: bytes) -> str:
    return in_line(line, as_json=False)


@pytest.mark.parametrize("case", RECORDS)
def test_a_log_record_is_one_line_for_a_person(case: str) -> None:
    """When, where, what; an app cannot write control characters to the operator's terminal."""
    record, line = RECORDS[case]
    assert shown(record) == line


@given(st.binary(max_size=200))
def test_no_log_record_can_break_the_terminal(record: bytes) -> None:
    """Whatever bytes come, one printable line comes out."""
    line = shown(record)
    assert line == printable(line)
    assert "\n" not in line


def test_percentiles_are_values_that_were_measured() -> None:
    """Half of the answers came within p50; one sample is all three."""
    latency = percentiles([float(n) for n in range(1, 101)])
    assert (latency.p50, latency.p95, latency.p99) == (51.0, 96.0, 100.0)
    assert percentiles([2.0]).p99 == 2.0


SHOP, LOCAL = AppName("shop"), EnvironmentName("local")
V1, V2 = ReleaseName("v1"), ReleaseName("v2")
STATES = {
    "nothing is under way": (AppStatus(SHOP, LOCAL, V1, "stable", 2, 2), "stable"),
    "a rollout has begun": (AppStatus(SHOP, LOCAL, V1, "running", 2, 2, V2, 1, 3), "running to v2, 1 of 3 hosts"),
    "a host is pinned": (
        AppStatus(SHOP, LOCAL, V1, "stable", 2, 2, aside={HostName("h1"): "pinned"}),
        "stable; h1 is pinned",
    ),
    "a host is away": (
        AppStatus(SHOP, LOCAL, V1, "unknown", 2, 2, unknown=(HostName("h2"), HostName("h3"))),
        "unknown; not connected: h2, h3",
    ),
    "it goes back": (AppStatus(SHOP, LOCAL, V1, "rolling_back", 2, 2, V2, 0, 1), "rolling back from v2, 0 of 1 hosts"),
}


@pytest.mark.parametrize("case", STATES)
def test_the_status_of_a_rollout_says_where_to_and_how_far(case: str) -> None:
    """One look tells whether to wait; no word has an underscore."""
    app, text = STATES[case]
    assert state(app) == text


def test_nobody_is_told_that_none_are_ready_where_nobody_knows() -> None:
    """0/0 would read as "nothing runs": where no host is connected there is no number."""
    assert ready(AppStatus(SHOP, LOCAL, V1, "unknown", 0, 0, unknown=(HostName("h1"),))) is None
    assert ready(AppStatus(SHOP, LOCAL, V1, "unknown", 2, 2, unknown=(HostName("h2"),))) == "2/2"
    assert ready(AppStatus(SHOP, LOCAL, V1, "stable", 0, 0)) == "0/0"
