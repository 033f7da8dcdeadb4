"""The bench of supervisors on real processes: a supervisor of three lines of sh goes through a whole round."""

import signal
from pathlib import Path

import psutil
import pytest

from bench.children import race
from bench.children.births import Births, build
from bench.children.contestants import Command
from bench.children.race import Race

SUPERVISOR = """
trap 'trap - TERM; kill 0' TERM
for number in $(seq "$1"); do (while :; do "$CHILD" "$BIRTHS"; done) & done
wait
"""
SIZES = (1, 3, 5)


def supervisor(_folder: Path, child: list[str], count: int) -> Command:
    # Whoever names the child in its words is taken for one.
    env = dict(zip(("CHILD", "BIRTHS"), child, strict=True))
    return Command(["/bin/sh", "-c", SUPERVISOR, "supervisor", str(count)], env, signal.SIGTERM)


def test_a_round_measures_a_supervisor_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts, restarts, a crash of all and a stop are seen by the children's own word, in time, and nobody is left."""
    for name in ("SETTLE_S", "IDLE_S"):
        monkeypatch.setattr(race, name, 0.05)
    child = build(tmp_path)
    births = Births(tmp_path / "births")
    try:
        found = Race(tmp_path, child, births, SIZES).round(supervisor)
    finally:
        births.close()
    assert {size: len(took) for size, took in found.start_s.items()} == {1: 1, 3: 2, 5: 1}
    times = [*(took for each in found.start_s.values() for took in each), *found.restart_s, found.crash_s]
    assert all(0 < took < race.BACK_WITHIN_S for took in times)
    assert len(found.restart_s) == SIZES[1]
    assert 0 < found.stopped_s < race.STOPPED_WITHIN_S
    assert found.left == 0
    assert min(found.memory.values()) > 0
    assert not [one for one in psutil.process_iter(["exe"]) if one.info["exe"] == str(child)]
