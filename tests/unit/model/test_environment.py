"""How an environment's settings become numbers of hosts, and which hosts they mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.environment import LOCAL_DEFAULTS, EnvironmentSettings, RollbackSettings, RollingSettings, Share

SHARES = {
    "a quarter of three": (Share(percent=25), 3, 1, 1),
    "a quarter of ten": (Share(percent=25), 10, 3, 2),
    "a quarter of eight": (Share(percent=25), 8, 2, 2),
    "one per cent of two": (Share(percent=1), 2, 1, 1),
    "all of seven": (Share(percent=100), 7, 7, 7),
    "two of ten": (Share(count=2), 10, 2, 2),
    "a quarter of nothing": (Share(percent=25), 0, 1, 1),
}


@pytest.mark.parametrize("case", SHARES)
def test_a_batch_rounds_up_and_a_bound_rounds_down(case: str) -> None:
    """Percentages round as in Kubernetes, and never to nothing."""
    share, total, batch, bound = SHARES[case]
    assert (share.of(total), share.at_most(total)) == (batch, bound)


@given(st.integers(1, 100), st.integers(0, 10_000))
def test_a_percentage_is_never_off_by_a_whole_host(percent: int, total: int) -> None:
    """Rounding up and down differ by one host at most, and stay within the fleet."""
    share = Share(percent=percent)
    assert 0 <= share.of(total) - share.at_most(total) <= 1
    assert share.of(total) <= max(1, total)


@pytest.mark.parametrize("share", [{}, {"count": 1, "percent": 1}])
def test_a_share_is_a_count_or_a_percentage(share: dict[str, int]) -> None:
    """Neither, or both, is nothing that a rollout could follow."""
    with pytest.raises(ValueError, match="either"):
        Share(**share)


HOSTS: dict[str, tuple[dict[str, str] | tuple[str, ...] | None, bool]] = {
    "nothing chosen": (None, True),
    "its label": ({"role": "web"}, True),
    "both its labels": ({"role": "web", "zone": "a"}, True),
    "one label of another host": ({"role": "web", "zone": "b"}, False),
    "a label that it lacks": ({"rack": "1"}, False),
    "its name": (("h1", "h2"), True),
    "other names": (("h2",), False),
}


@pytest.mark.parametrize("case", HOSTS)
def test_a_host_is_chosen_by_all_labels_or_by_name(case: str) -> None:
    """Labels must all be there; names are exact; without either every host is meant."""
    hosts, chosen = HOSTS[case]
    assert EnvironmentSettings(hosts=hosts).includes("h1", {"role": "web", "zone": "a"}) is chosen


def test_the_way_back_has_its_own_shares_and_no_pauses() -> None:
    """A rollback waits for no pause, and is as patient with each host as the way forward."""
    settings = EnvironmentSettings(
        rolling=RollingSettings(batch=Share(count=1), pause_between_ms=5_000, min_ready_ms=7),
        rollback=RollbackSettings(batch=Share(percent=100), max_unavailable=Share(percent=50)),
    )
    forward, back = settings.pace(9), settings.back_pace(9)
    assert (forward.batch, forward.max_unavailable, forward.pause_between_ms) == (1, 1, 5_000)
    assert (back.batch, back.max_unavailable, back.pause_between_ms) == (9, 4, 0)
    assert (back.min_ready_ms, back.deadline_ms) == (forward.min_ready_ms, forward.deadline_ms) == (7, 300_000)


def test_local_is_quick() -> None:
    """`rollway up` has one person waiting: a second of readiness, half a minute of patience, two seconds of linger."""
    assert (LOCAL_DEFAULTS.pace(3).min_ready_ms, LOCAL_DEFAULTS.pace(3).deadline_ms) == (1_000, 30_000)
    assert LOCAL_DEFAULTS.linger_ms == 2_000
