"""The bench of supervisors: its own arithmetic, and what it says of goals."""

import math

from bench.children.race import Round
from bench.children.report import Results, judged, markdown, percentile, rows, summary
from bench.peers.machine import Machine

SIZES = (1, 100, 500)


def gave(seconds: float, *, restarts: int = 4, idle_s: float = 0.0) -> Round:
    return Round(
        start_s={1: [seconds], 100: [seconds, 3 * seconds], 500: [5 * seconds]},
        memory={1: 1 << 20, 100: 2 << 20, 500: 3 << 20},
        idle_s_per_minute=idle_s,
        restart_s=[seconds / 1_000] * restarts,
        crash_s=seconds,
        stopped_s=seconds,
        gone_s=seconds,
        left=0,
    )


def results(**rounds: list[Round]) -> Results:
    found = rows(rounds, dict.fromkeys(rounds, "1"), SIZES)
    machine = Machine(processor="one", cores=2, kernel="Linux", python="3.11")
    return Results(machine=machine, rounds=3, sizes=SIZES, rows=found, goals=judged(found), missing={"pm2": "away"})


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """Of few values the 99th of a hundred is the largest; of many it leaves those out that are rarer."""
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert percentile([1.0, 2.0, 3.0], 99) == 3.0
    assert percentile(list(map(float, range(1, 201))), 99) == 198.0


def test_medians_are_compared_and_restarts_are_pooled() -> None:
    """One slow round changes no median; both starts of some count; ratios are Rollway's over the peer's."""
    ours, peer = results(rollway=[gave(1.0), gave(1.0), gave(90.0)], runit=[gave(4.0)]).rows
    assert (ours.figures["start_one_s"].value, ours.figures["start_one_s"].most, ours.ratios) == (1.0, 90.0, {})
    assert peer.figures["start_some_s"].value == 8.0
    assert (peer.ratios["start_one_s"], peer.ratios["crash_ms"]) == (0.25, 0.25)
    assert (ours.figures["restart_p50_ms"].value, ours.figures["restart_p99_ms"].value) == (1.0, 90.0)


def test_goals_are_judged_against_the_peer_that_they_name() -> None:
    """The best peer is looked for in this run; a peer that did not run judges nothing; what never came back fails."""
    run = results(rollway=[gave(1.0)], runit=[gave(1.5)], s6=[gave(math.inf)])
    starts = [one for one in run.goals if one.goal.measure == "start_many_s"]
    assert [(one.against, one.met) for one in starts] == [("runit", True), ("runit", False)]
    assert {one.against for one in run.goals} == {"runit", "s6"}
    lost = results(rollway=[gave(math.inf)], runit=[gave(1.5)])
    assert not any(one.met for one in lost.goals if one.goal.measure == "crash_ms")


def test_tables_hold_every_measure_and_who_is_missing() -> None:
    """A person reads who took part, each figure with its ratio, whether goals are met, and who could not be had."""
    text = markdown(results(rollway=[gave(1.0)], runit=[gave(4.0, idle_s=0.001)]))
    assert "| start of 500, s | 5.00 | 20.0 [0.25 x] |" in text
    assert "start of 500, s: at most 0.6 x best peer, runit (stretch) | 0.25 x |  | met by `rollway` |" in text
    assert "pm2: not measured: away" in text
    assert "start 1.00 / 2.00 / 5.00 s" in summary(gave(1.0), SIZES)
