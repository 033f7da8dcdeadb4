"""The figures of all runs as a table and as JSON: medians, ratios, and whether the goals are met.

Ratios are what can be compared from one machine to another: all contestants ran in turn, on the same cores.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from msgspec import Struct

from bench.loglines.race import Run, sum_of
from bench.peers.machine import Machine

GOALS: Final = {"s6-log": 2.0, "pm2": 2.0, "pm2-json": 2.0, "svlogd": 4.0, "circus": 4.0, "supervisord": 0.4}
"""How many times a peer's lines per second of CPU Rollway is to reach; supervisord only copies bytes."""
US: Final = "rollway"
LIMIT: Final = "floor"
"""No peer: what the kernel's part of Rollway's way costs alone."""
_MIB: Final = 1 << 20


class Row(Struct, frozen=True, kw_only=True):
    """Medians of one contestant's runs; memory is PSS and files in memory, in bytes."""

    name: str
    version: str
    sink: str
    per_cpu_s: float
    per_wall_s: float
    lost: int
    wrong: int
    memory_start: int
    memory_most: int
    memory_end: int
    rss_end: int
    per_cpu_ratio: float | None
    """Rollway's lines per second of CPU over this one's."""
    per_wall_ratio: float | None
    goal: float | None
    runs: list[Run]


class Results(Struct, frozen=True, kw_only=True):
    """One call of the bench."""

    machine: Machine
    lines: int
    kind: str
    rounds: int
    rows: list[Row]
    missing: dict[str, str]


def rows(runs: Mapping[str, Sequence[Run]], about: Mapping[str, tuple[str, str]]) -> list[Row]:
    """The contestants by lines per second of CPU, the best first; `about` has version and sink of each."""
    speeds = {
        name: (median(run.per_cpu_s for run in those), median(run.per_wall_s for run in those))
        for name, those in runs.items()
    }
    ours = speeds.get(US)

    def row(name: str, those: Sequence[Run]) -> Row:
        per_cpu_s, per_wall_s = speeds[name]
        compared = ours if name != US else None
        return Row(
            name=name,
            version=about[name][0],
            sink=about[name][1],
            per_cpu_s=per_cpu_s,
            per_wall_s=per_wall_s,
            lost=sum(run.lost for run in those),
            wrong=sum(run.wrong for run in those),
            memory_start=int(median(sum_of(run.start) for run in those)),
            memory_most=max(sum_of(run.most) for run in those),
            memory_end=int(median(sum_of(run.end) for run in those)),
            rss_end=int(median(run.end.rss for run in those)),
            per_cpu_ratio=compared[0] / per_cpu_s if compared else None,
            per_wall_ratio=compared[1] / per_wall_s if compared else None,
            goal=GOALS.get(name) if compared else None,
            runs=list(those),
        )

    return sorted((row(name, those) for name, those in runs.items()), key=lambda one: -one.per_cpu_s)


def markdown(results: Results) -> str:
    """The table, with what it was measured on."""
    said = (
        f"{results.lines:,} lines of 100 bytes ({results.kind}), {results.rounds} rounds in turn, medians. "
        f"{results.machine}. The supervisor alone on one core; "
        "program and reader on another. Ratios: Rollway over the peer."
    )
    lines = [
        said,
        "",
        "| | lines/s of CPU | ratio | goal | lines/s of wall | ratio | lost | wrong | MiB, start / most / end | as |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results.rows:
        memory = " / ".join(f"{size / _MIB:.1f}" for size in (row.memory_start, row.memory_most, row.memory_end))
        lines.append(
            f"| {row.name} ({row.version}) | {row.per_cpu_s:,.0f} | {_ratio(row.per_cpu_ratio)} | {_goal(row)} "
            f"| {row.per_wall_s:,.0f} | {_ratio(row.per_wall_ratio)} | {row.lost:,} | {row.wrong:,} "
            f"| {memory} | {row.sink} |"
        )
    lines += [f"| {name} | not measured: {why} |" for name, why in results.missing.items()]
    return "\n".join(lines) + "\n"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} x"


def _goal(row: Row) -> str:
    if row.goal is None or row.per_cpu_ratio is None:
        return ""
    return f"{row.goal:g} x: {'met' if row.per_cpu_ratio >= row.goal else 'not met'}"
