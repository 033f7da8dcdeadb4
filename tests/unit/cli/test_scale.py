"""The words of `rollway scale`, before any coordinator is asked."""

import pytest

from agent.cli.main import run

WRONG = {
    "no count": ("web", "expected TYPE=N, such as web=3, found 'web'"),
    "no type": ("=3", "expected TYPE=N"),
    "a word": ("web=many", "web: expected an integer from 0 to 500, found 'many'"),
    "less than nothing": ("web=-1", "web: expected an integer from 0 to 500, found '-1'"),
    "too many": ("web=501", "web: expected an integer from 0 to 500, found '501'"),
    "thousands of digits": (f"web={'9' * 5_000}", "web: expected an integer from 0 to 500"),
}


@pytest.mark.parametrize(("word", "why"), WRONG.values(), ids=WRONG)
def test_a_wrong_count_is_named(word: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is asked of anybody: exit code 2, what was expected, what was found."""
    assert run(["scale", "shop", "local", "worker=1", word]) == 2
    assert why in capsys.readouterr().err
