"""Many small fleets under faults, each drawn from a seed; ROLLWAY_SEEDS=1000-1999 plays others than the usual ones."""

import os

import pytest

from tests.simulation.scenarios import breach_of

CHUNK = 50
FIRST, LAST = (int(seed) for seed in os.environ.get("ROLLWAY_SEEDS", "0-499").split("-"))


@pytest.mark.parametrize("first", range(FIRST, LAST + 1, CHUNK))
def test_no_fault_breaks_an_invariant(first: int) -> None:
    """Whatever fails, and whenever: no host serves with less, nothing runs twice, and every order comes to its end."""
    for seed in range(first, min(first + CHUNK, LAST + 1)):
        breach = breach_of(seed)
        assert not breach, f"seed {seed}: {breach}\nreplay it with: python -m tests.simulation {seed}"
