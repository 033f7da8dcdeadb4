"""When probes ask: each at its period, hundreds that begin together at moments of their own."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decisions.process.probe import next_ms, rhythm
from agent.decisions.process.state import Adopted, Probed, StartProbe, Terms, durable
from agent.model.process import HttpCheck, Probe, Probes
from tests.unit.decisions.process.test_instance import Life, running

PERIOD_MS = 10_000
PROBES = 500
IN_A_HUNDREDTH = 20
"""So many of 500 in the fullest hundredth of their period: five are to be expected."""
ASKED = Probe(check=HttpCheck(path="/"), period_ms=PERIOD_MS, initial_delay_ms=3_000, failures=2)


def moments(begin: StartProbe, seed: int) -> list[int]:
    """When each of many probes that begin at 0 asks in the steady run, as a part of its period."""
    draw = random.Random(seed)  # noqa: S311 - a draw, no secret
    found = []
    for _ in range(PROBES):
        when = rhythm(begin, PERIOD_MS, draw.random())
        found.append((when.wait_ms + when.gap_ms) % PERIOD_MS)
    return found


@pytest.mark.parametrize("spread", [True, False])
def test_hundreds_that_begin_together_do_not_ask_together(spread: bool) -> None:  # noqa: FBT001 - a table of two
    """After a restart of the agent as after the start of 500 instances, no moment of the period has many questions."""
    for seed in range(20):
        parts = [moment * 100 // PERIOD_MS for moment in moments(StartProbe(kind="liveness", spread=spread), seed)]
        assert max(map(parts.count, range(100))) <= IN_A_HUNDREDTH


@given(st.integers(100, 600_000), st.integers(0, 60_000), st.floats(0, 1), st.booleans())
def test_nobody_waits_longer_than_a_period_more(period_ms: int, wait_ms: int, jitter: float, spread: bool) -> None:  # noqa: FBT001
    """A new process is asked at once after its initial delay; one that is taken up within a period of it."""
    when = rhythm(StartProbe(kind="startup", wait_ms=wait_ms, spread=spread), period_ms, jitter)
    assert wait_ms <= when.wait_ms <= wait_ms + (period_ms if spread else 0)
    assert 1 <= when.gap_ms <= period_ms


@given(st.integers(0, 10**9), st.integers(100, 600_000), st.integers(0, 10**7))
def test_a_late_answer_moves_no_rhythm(due_ms: int, period_ms: int, late_ms: int) -> None:
    """The next question comes within a period from now and keeps to the beat, however many were missed."""
    now_ms = due_ms + late_ms
    found = next_ms(due_ms, period_ms, now_ms)
    assert now_ms < found <= now_ms + period_ms
    assert (found - due_ms) % period_ms == 0


def test_an_early_question_fails_nobody() -> None:
    """Bad news within a period of other bad news counts once; good news counts at once."""
    life = running(Terms(probes=Probes(liveness=ASKED)))
    bad = Probed(kind="liveness", launch=1, ok=False, detail="status 500")
    early = Probed(kind="liveness", launch=1, ok=False, detail="status 500", early=True)
    life.take(bad, early)
    assert life.state.ending is None
    life.take(Probed(kind="liveness", launch=1, ok=True, early=True), bad)
    assert life.state.ending is None
    life.take(bad)
    assert life.state.ending is not None


def test_where_several_successes_are_wanted_an_early_one_is_none() -> None:
    """Ready for two periods is not ready twice in a moment."""
    twice = Probe(check=HttpCheck(path="/"), period_ms=PERIOD_MS, successes=2)
    life = running(Terms(probes=Probes(readiness=twice)))
    good = Probed(kind="readiness", launch=1, ok=True)
    life.take(good, Probed(kind="readiness", launch=1, ok=True, early=True))
    assert life.shown() == "starting"
    life.take(good)
    assert life.shown() == "ready"


def test_what_is_left_of_the_initial_delay_is_what_a_next_agent_waits() -> None:
    """The delay counts from the start of the process, or of readiness and liveness, whoever asks by then."""
    life = running(Terms(probes=Probes(startup=ASKED)))
    assert begun(life) == [StartProbe(kind="startup", wait_ms=3_000)]
    life.state = durable(life.state)
    life.take(Adopted(pid=71), after_ms=1_000)
    assert begun(life) == [StartProbe(kind="startup", wait_ms=2_000, spread=True)]
    life = running(Terms(probes=Probes(startup=ASKED, liveness=ASKED)))
    life.take(Probed(kind="startup", launch=1, ok=True), after_ms=50_000)
    assert begun(life) == [StartProbe(kind="liveness", wait_ms=3_000)]
    life.state = durable(life.state)
    life.take(Adopted(pid=71), after_ms=2_000)
    assert begun(life) == [StartProbe(kind="liveness", wait_ms=1_000, spread=True)]
    life.state = durable(life.state)
    life.take(Adopted(pid=71), after_ms=2_000)
    assert begun(life) == [StartProbe(kind="liveness", spread=True)]


def begun(life: Life) -> list[StartProbe]:
    return [action for action in life.actions if isinstance(action, StartProbe)]
