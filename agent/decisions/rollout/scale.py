"""New counts for a fleet in which nothing is under way: what each host is given, and how far it is with that.

Rules: what a host runs stays what it is, only the counts are others, so no order is needed anew; a host that has them
is given nothing. One that is away gets them when it is back, and is waited for no longer than a coordinator needs to
start anew; one that a person has set aside follows when it takes part again.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from agent.decisions.rollout.hosts import AWAY_MS_MIN
from agent.model.assignment import AppReport, Assignment
from agent.model.ids import HostName, ProcessName
from agent.model.process import AppSpec
from agent.model.units import Milliseconds

Counts = Mapping[ProcessName, int]
HostWord = Literal["waiting", "scaling", "done", "failed", "unreachable", "pinned", "drained"]
ScaleState = Literal["scaling", "done", "failed"]
STRAGGLERS: Final = frozenset({"unreachable", "pinned", "drained"})


class HostScale(Struct, frozen=True, kw_only=True):
    """One host on its way to the counts that it was given."""

    host: HostName
    state: HostWord
    reason: str = ""
    ready: dict[ProcessName, int] = {}
    wanted: dict[ProcessName, int] = {}
    waited_for: bool = False
    """Whether it is on its way, or may be back in a moment."""


def scaled(
    held: Mapping[HostName, Assignment], hosts: Iterable[HostName], counts: Counts, declared: Counts
) -> dict[HostName, Assignment]:
    """What those of `hosts` are given that run something with other counts; `declared` are the app's own."""
    given: dict[HostName, Assignment] = {}
    for host in hosts:
        has = held.get(host)
        if has is None or has.release is None:
            continue
        if any(has.counts.get(name, declared.get(name)) != count for name, count in counts.items()):
            given[host] = replace(has, generation=has.generation + 1, counts={**has.counts, **counts})
    return given


def per_host(spec: AppSpec | None) -> dict[ProcessName, int]:
    """The app's own counts of what has one on each host: singletons and totals count in the whole environment."""
    types = spec.processes if spec is not None else ()
    return {process.name: process.count for process in types if not (process.singleton or process.total)}


def look(
    host: HostName, has: Assignment, report: AppReport | None, declared: Counts, away_ms: Milliseconds | None
) -> HostScale:
    """How far one host is, by what it says; `away_ms`: for how long it has been away, None: it is connected."""
    wanted = {name: has.counts.get(name, count) for name, count in declared.items()}
    if away_ms is not None:
        waited_for = away_ms < AWAY_MS_MIN
        return HostScale(host=host, state="unreachable", wanted=wanted, waited_for=waited_for)
    if report is None:  # connected just now, and has not said yet
        return HostScale(host=host, state="waiting", wanted=wanted, waited_for=True)
    ready = dict.fromkeys(declared, 0)
    for one in report.instances:
        if one.state == "ready" and one.process in ready:
            ready[one.process] += 1
    word = _word(has, report)
    return HostScale(
        host=host,
        state=word,
        reason=report.reason if word == "failed" else "",
        ready=ready,
        wanted=wanted,
        waited_for=word in ("waiting", "scaling"),
    )


def _word(has: Assignment, report: AppReport) -> HostWord:
    if report.aside == "pinned":
        return "pinned"
    if report.aside:
        return "drained"
    if report.generation < has.generation:
        return "waiting"
    match report.state:
        case "done" | "failed":
            return report.state
        case _:
            return "scaling"


def state(hosts: Iterable[HostScale]) -> ScaleState:
    """Where the fleet is: a host that failed is told when all others have arrived."""
    hosts = tuple(hosts)
    if any(host.waited_for for host in hosts):
        return "scaling"
    return "failed" if any(host.state == "failed" for host in hosts) else "done"
