"""What a host remembers over a restart, and what it does not believe."""

from pathlib import Path

import pytest

from agent.decisions.swap.state import SwapState
from agent.host.assignments import AppKey, States
from agent.model.ids import AppName, EnvironmentName
from tests.integration.host.source import APP, ENVIRONMENT, Wish

KEY = AppKey(APP, ENVIRONMENT)
STATE = SwapState(assignment=Wish().for_(None), sequence=7, phase="swapping")


def load(folder: Path) -> tuple[dict[AppKey, SwapState], list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    found = States(folder).load(lambda path, reason: told.append((path.name, reason)))
    return found, told


def test_a_stored_state_comes_back_as_it_was(tmp_path: Path) -> None:
    """What was stored last for an app and environment is what the next start finds."""
    states = States(tmp_path)
    states.store(KEY, SwapState())
    states.store(KEY, STATE)
    assert load(tmp_path) == ({KEY: STATE}, [])


WRONG = {
    "a file torn in its middle": lambda whole: whole[: len(whole) // 2],
    "an empty file": lambda _whole: b"",
    "a file of zeros, as a crashed file system leaves them": lambda whole: bytes(len(whole)),
    "a value of another type": lambda whole: whole.replace(b'"sequence":7', b'"sequence":"7"'),
    "a phase that there is not": lambda whole: whole.replace(b'"swapping"', b'"sleeping"'),
    "the state of another app": lambda whole: whole.replace(b'"shop"', b'"shoq"'),
}


@pytest.mark.parametrize("damage", WRONG.values(), ids=WRONG.keys())
def test_a_state_that_cannot_be_trusted_is_set_aside_and_told(damage: object, tmp_path: Path) -> None:
    """It is not used, not deleted and named in an event; other apps are not affected."""
    states = States(tmp_path)
    states.store(KEY, STATE)
    other = AppKey(AppName("blog"), EnvironmentName("production"))
    states.store(other, SwapState())
    path = tmp_path / "shop.production.json"
    assert callable(damage)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    found, told = load(tmp_path)
    assert found == {other: SwapState()}
    assert [name for name, _ in told] == ["shop.production.unreadable-1"]
    assert "shop.production.json" in told[0][1]
    assert (tmp_path / told[0][0]).read_bytes() == damaged
    assert load(tmp_path) == ({other: SwapState()}, [])
