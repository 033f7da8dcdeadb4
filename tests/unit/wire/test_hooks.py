"""What a hook of a load balancer is told, and what its answers are taken for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.address import Address
from agent.model.balancer import Standing, Wanted, Wish
from agent.wire import hooks


def test_a_hook_is_told_the_whole_wish() -> None:
    """Every server with its address, whether users may come, its weight; the prefix says whose all of them are."""
    wish = Wish(servers=(Wanted(name="h1:web", address=Address("::1", 80), admitted=False),), drain_ms=500)
    assert json.loads(hooks.question(wish, "h1:")) == {
        "version": 1,
        "prefix": "h1:",
        "drain_ms": 500,
        "servers": [{"name": "h1:web", "address": "[::1]:80", "admitted": False, "weight": 100}],
    }


ANSWERS: dict[str, tuple[bytes, dict[str, Standing] | str]] = {
    "a state": (b'{"servers": {"h1:web": {"state": "drained"}}}', {"h1:web": Standing(state="drained")}),
    "a reason, in one line": (
        b'{"servers": {"h1:web": {"state": "draining", "detail": "2\\nleft"}}, "more": 1}',
        {"h1:web": Standing(state="draining", detail="2 left")},
    ),
    "nothing": (b"", "its answer cannot be read: Input data was truncated"),
    "a state that is none": (
        b'{"servers": {"h1:web": {"state": "unknown"}}}',
        "its answer cannot be read: Invalid enum",
    ),
    "no servers": (b"{}", "its answer cannot be read: Object missing required field `servers`"),
    "too much": (b"x" * hooks.ANSWER_BYTES_MAX, "it answered 262144 bytes or more"),
}


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_states_or_a_reason(answer: bytes, expected: dict[str, Standing] | str) -> None:
    """Only the states that a rollout knows count; what is none of them is told."""
    told = hooks.parse_answer(answer)
    if isinstance(expected, str):
        assert isinstance(told, str)
        assert told.startswith(expected)
    else:
        assert told == expected


@given(st.binary(max_size=400))
def test_no_answer_breaks_the_reader(answer: bytes) -> None:
    """Whatever a command writes, it is read or refused."""
    assert isinstance(hooks.parse_answer(answer), dict | str)
