"""Which rollout a word means, and what is refused because another could be meant."""

import pytest

from tests.integration.cli.coordinator import FakeCoordinator
from tests.integration.cli.story import rollout, rollway

LIVE = rollout(id="r-0a11")
OTHER = rollout(id="r-0b22", app="blog")
OLD = rollout(id="r-0a99", state="done")

MEANT = {
    "nothing, and one is under way": ([OLD, LIVE], ["pause"], "r-0a11"),
    "the beginning of an id": ([LIVE, OTHER], ["pause", "r-0b"], "r-0b22"),
    "the beginning of an id without its r-": ([LIVE, OTHER], ["abort", "0b"], "r-0b22"),
    "an app and its environment": ([LIVE], ["resume", "shop", "local"], "r-0a11"),
    "the id of one that has ended": ([LIVE, OLD], ["abort", "r-0a99"], "r-0a99"),
}


@pytest.mark.parametrize("case", MEANT)
def test_a_word_goes_to_the_rollout_that_is_meant(
    case: str, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id need not be typed whole, nor at all where nothing else can be meant."""
    rollouts, words, identity = MEANT[case]
    fake.answers["GET", "/v1/rollouts"] = (200, rollouts)
    fake.answers["POST", f"/v1/rollouts/{identity}/{words[0]}"] = (200, rollout(id=identity))
    assert rollway(monkeypatch, "rollout", *words) == 0
    assert fake.asked[-1].path == f"/v1/rollouts/{identity}/{words[0]}"


REFUSED = {
    "several are under way": ([LIVE, OTHER], ["abort"], 4, "r-0a11 (shop local to v2), r-0b22"),
    "several are under way, and one is to be shown": ([LIVE, OTHER], ["show"], 4, "2 rollouts are under way"),
    "none is under way": ([OLD], ["abort"], 4, "no rollout is under way"),
    "none of the app is under way": ([OLD], ["pause", "shop", "local"], 4, "no rollout is under way"),
    "a beginning of several": ([LIVE, OLD], ["abort", "r-0a"], 2, "r-0a11, r-0a99"),
    "an id that nothing has": ([LIVE], ["abort", "r-77"], 5, "r-77"),
    "three words": ([LIVE], ["abort", "shop", "local", "now"], 2, "shop local now"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_word_that_could_mean_another_rollout_is_refused(
    case: str, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody aborts somebody else's rollout by leaving out a word."""
    rollouts, words, code, said = REFUSED[case]
    fake.answers["GET", "/v1/rollouts"] = (200, rollouts)
    assert rollway(monkeypatch, "rollout", *words) == code
    assert said in capsys.readouterr().err
    assert fake.bodies("POST") == []


def test_show_takes_the_newest_where_none_is_under_way(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the fact one looks at what happened last."""
    fake.answers["GET", "/v1/rollouts"] = (200, [OLD, rollout(id="r-0a00", state="failed")])
    assert rollway(monkeypatch, "rollout", "show") == 0
    assert "r-0a99" in capsys.readouterr().out


def test_a_list_has_relative_times_and_states_in_words(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is for persons; ISO and underscores stay in JSON."""
    ended = rollout(state="rolled_back", created="2020-01-01T00:00:00.000+00:00")
    fake.answers["GET", "/v1/rollouts"] = (200, [ended])
    assert rollway(monkeypatch, "rollout", "list") == 0
    shown = capsys.readouterr().out
    assert "rolled back" in shown
    assert "d ago" in shown
    assert "2020-" not in shown
    assert rollway(monkeypatch, "rollout", "list", "--json") == 0
    assert '"state":"rolled_back"' in (as_json := capsys.readouterr().out)
    assert "2020-01-01T00:00:00" in as_json
