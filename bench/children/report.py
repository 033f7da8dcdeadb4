"""The figures of all rounds as tables and as JSON: medians, ratios, and whether the goals are met.

Less is better in every measure. Ratios are what can be compared from one machine to another: all ran in turn.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final, get_args

from msgspec import Struct

from bench.children.goals import ANY, BEST, GOALS, PLAIN, Goal, Measure
from bench.children.race import Round
from bench.peers.machine import Machine

US: Final = (ANY, PLAIN)
_MIB: Final = 1 << 20
_MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)
_NAMES: Final[dict[Measure, str]] = {
    "start_one_s": "start of {one}, s",
    "start_some_s": "start of {some}, s",
    "start_many_s": "start of {many}, s",
    "memory_one": "MiB with {one}",
    "memory_some": "MiB with {some}",
    "memory_many": "MiB with {many}",
    "idle_many": "CPU of {many} at rest, s a minute",
    "restart_p50_ms": "restart of 1 of {some}, p50, ms",
    "restart_p99_ms": "the same, p99, ms",
    "crash_ms": "{some} killed at once, until all are back, ms",
    "stopped_ms": "stop of {some}, until they are gone, ms",
    "gone_ms": "the same, until the supervisor is gone too, ms",
    "left": "children left alive by it",
}


class Figure(Struct, frozen=True):
    """Of all rounds; of restarts, which are pooled, least and most are those of single ones."""

    value: float
    least: float
    most: float


class Row(Struct, frozen=True, kw_only=True):
    """One contestant."""

    name: str
    version: str
    figures: dict[Measure, Figure]
    ratios: dict[Measure, float]
    """Rollway's figure over this one's, of a peer."""
    rounds: list[Round]


class Judged(Struct, frozen=True, kw_only=True):
    goal: Goal
    against: str
    """The peer that it was compared with."""
    ratios: dict[str, float]
    """Of each kind of Rollway."""
    met: bool


class Results(Struct, frozen=True, kw_only=True):
    """One call of the bench."""

    machine: Machine
    rounds: int
    sizes: tuple[int, int, int]
    rows: list[Row]
    goals: list[Judged]
    missing: dict[str, str]


def figures(rounds: Sequence[Round], sizes: tuple[int, int, int]) -> dict[Measure, Figure]:
    one, some, many = sizes

    def over(values: Iterable[float], *, unit: float = 1) -> Figure:
        got = [value / unit for value in values]
        return Figure(median(got), min(got), max(got))

    restarts = sorted(took * 1e3 for each in rounds for took in each.restart_s)
    return {
        "start_one_s": over(value for each in rounds for value in each.start_s[one]),
        "start_some_s": over(value for each in rounds for value in each.start_s[some]),
        "start_many_s": over(value for each in rounds for value in each.start_s[many]),
        "memory_one": over((each.memory[one] for each in rounds), unit=_MIB),
        "memory_some": over((each.memory[some] for each in rounds), unit=_MIB),
        "memory_many": over((each.memory[many] for each in rounds), unit=_MIB),
        "idle_many": over(each.idle_s_per_minute for each in rounds),
        "restart_p50_ms": Figure(percentile(restarts, 50), restarts[0], restarts[-1]),
        "restart_p99_ms": Figure(percentile(restarts, 99), restarts[0], restarts[-1]),
        "crash_ms": over((each.crash_s for each in rounds), unit=1e-3),
        "stopped_ms": over((each.stopped_s for each in rounds), unit=1e-3),
        "gone_ms": over((each.gone_s for each in rounds), unit=1e-3),
        "left": over(each.left for each in rounds),
    }


def summary(one: Round, sizes: tuple[int, int, int]) -> str:
    """A round in a line, for who waits."""
    got = figures([one], sizes)
    start, memory = (
        " / ".join(_short(got[measure].value) for measure in _MEASURES if measure.startswith(what))
        for what in ("start", "memory")
    )
    restart, p99, crash, stop = (
        _short(got[measure].value) for measure in ("restart_p50_ms", "restart_p99_ms", "crash_ms", "stopped_ms")
    )
    idle = _short(got["idle_many"].value)
    return f"start {start} s, {memory} MiB, idle {idle}, restart {restart} / {p99}, crash {crash}, stop {stop} ms"


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def rows(rounds: Mapping[str, Sequence[Round]], versions: Mapping[str, str], sizes: tuple[int, int, int]) -> list[Row]:
    found = {name: figures(those, sizes) for name, those in rounds.items()}
    us = found.get(ANY) or found.get(PLAIN)

    def ratios(name: str) -> dict[Measure, float]:
        if us is None or name in US:
            return {}
        return {measure: ratio(us[measure], found[name][measure]) for measure in _MEASURES if measure != "left"}

    return [
        Row(name=name, version=versions[name], figures=found[name], ratios=ratios(name), rounds=list(those))
        for name, those in rounds.items()
    ]


def ratio(ours: Figure, theirs: Figure) -> float:
    return ours.value / theirs.value if theirs.value else math.inf


def judged(found: Sequence[Row]) -> list[Judged]:
    """Every goal for which both sides have run."""
    ours = {row.name: row.figures for row in found if row.name in US}
    peers = {row.name: row.figures for row in found if row.name not in US}
    results = []
    for goal in GOALS:
        against = min(peers, key=lambda name: peers[name][goal.measure].value) if goal.of == BEST and peers else goal.of
        if against not in peers or goal.who not in ours:
            continue
        theirs = peers[against][goal.measure]
        ratios = {name: ratio(figures[goal.measure], theirs) for name, figures in ours.items()}
        results.append(Judged(goal=goal, against=against, ratios=ratios, met=ratios[goal.who] <= goal.most))
    return results


def markdown(results: Results) -> str:
    """The tables, with what it was measured on."""
    names = [row.name for row in results.rows]
    sizes = dict(zip(("one", "some", "many"), results.sizes, strict=True))
    said = (
        f"{results.rounds} rounds in turn, medians (least..most). {results.machine}. "
        "In brackets: Rollway (`rollway`: sockets, probes, records, cgroups) over the peer; less is better. "
        "Memory is PSS and files in memory of the supervisor and its helpers."
    )
    lines = [
        said,
        "",
        f"| | {' | '.join(f'{row.name} ({row.version})' for row in results.rows)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for measure in _MEASURES:
        cells = " | ".join(_cell(row, measure) for row in results.rows)
        lines.append(f"| {_NAMES[measure].format(**sizes)} | {cells} |")
    lines += ["", "| goal | " + " | ".join(US) + " | |", f"|---|{'---|' * (len(US) + 1)}"]
    for one in results.goals:
        of = f"{one.goal.of}, {one.against}" if one.goal.of == BEST else one.goal.of
        what = f"{_NAMES[one.goal.measure].format(**sizes)}: at most {one.goal.most:g} x {of}"
        what += " (stretch)" if one.goal.stretch else ""
        ratios = " | ".join(f"{one.ratios[name]:.2f} x" if name in one.ratios else "" for name in US)
        lines.append(f"| {what} | {ratios} | {'met' if one.met else 'not met'} by `{one.goal.who}` |")
    lines += [f"\n{name}: not measured: {why}" for name, why in results.missing.items()]
    return "\n".join(lines) + "\n"


def _cell(row: Row, measure: Measure) -> str:
    figure = row.figures[measure]
    spread = "" if figure.least == figure.most else f" ({_short(figure.least)}..{_short(figure.most)})"
    compared = f" [{row.ratios[measure]:.2f} x]" if measure in row.ratios else ""
    return f"{_short(figure.value)}{spread}{compared}"


def _short(value: float) -> str:
    """Three digits that count."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
