"""Probes, with the kubelet's semantics: what stands in for undeclared ones, and when results in a row decide.

Startup gates the other two. Readiness runs all life long and never restarts. Liveness restarts. Thresholds count
*consecutive* results; one success is enough for startup and liveness, whatever is declared.
"""

from typing import Final, Literal

import msgspec
from msgspec import Struct

from agent.decisions.process.state import Probed, StartProbe, Tally
from agent.model.process import NotifyCheck, Probe, Probes, TcpCheck
from agent.model.units import Milliseconds

Verdict = Literal["passed", "failed", "undecided"]

SOMEBODY_ACCEPTS: Final = Probe(check=TcpCheck(), period_ms=250, timeout_ms=1_000, failures=2**31)
"""For a listening type that declares neither startup nor readiness. A slow start is no failure: it never restarts."""


def effective(declared: Probes, *, listens: bool) -> Probes:
    """The probes that are run: nothing may count as ready on a slot on which nobody accepts."""
    if listens and declared.startup is None and declared.readiness is None:
        return msgspec.structs.replace(declared, startup=SOMEBODY_ACCEPTS)
    return declared


class Rhythm(Struct, frozen=True):
    """When a probe asks: at first after `wait_ms`, then after `gap_ms`, from then on at each period."""

    wait_ms: Milliseconds
    gap_ms: Milliseconds


def rhythm(begin: StartProbe, period_ms: Milliseconds, jitter: float) -> Rhythm:
    """With probes that begin together no period is asked at the same time; `jitter` in 0..1 draws the moment in it.

    Where an agent takes up what another left, which is when hundreds begin at once, the first question waits a part of
    a period, as the kubelet's do after its restart. A new process is asked at once, so that its start takes no longer
    for the sake of others, and finds its own moment by asking the second time early.
    """
    part_ms = int(period_ms * jitter)
    if begin.spread:
        return Rhythm(begin.wait_ms + part_ms, period_ms)
    return Rhythm(begin.wait_ms, max(period_ms - part_ms, 1))


def next_ms(due_ms: float, period_ms: Milliseconds, now_ms: float) -> float:
    """The next moment of a rhythm after one that was due.

    Those that a slow answer, or a slow agent, missed are left out: who was late together is not so from then on.
    """
    missed = max(0, (now_ms - due_ms) // period_ms)
    return due_ms + (missed + 1) * period_ms


def tallied(tally: Tally, *, ok: bool, enough: int = 1) -> Tally:
    """Good results are counted up to `enough`: of who is well there is nothing new to tell for ever."""
    if ok:
        return Tally(successes=min(tally.successes + 1, enough))
    return Tally(failures=tally.failures + 1)


def counts(event: Probed, *, successes: int = 1) -> bool:
    """Whether a result is one of those in a row: good news that needs no other is taken whenever it comes."""
    return not event.early or (event.ok and successes == 1)


def verdict(tally: Tally, probe: Probe, *, successes: int = 1) -> Verdict:
    if tally.successes >= successes:
        return "passed"
    return "failed" if tally.failures >= probe.failures else "undecided"


def patience_ms(probe: Probe) -> Milliseconds:
    """How long failures, or silence, may last."""
    return probe.period_ms * probe.failures


def is_told(probe: Probe | None) -> bool:
    """Whether the process speaks by itself, so that nothing is asked."""
    return probe is not None and isinstance(probe.check, NotifyCheck)


def watchdog_ms(probes: Probes) -> Milliseconds | None:
    """How often, at the least, the process must say that it lives; None where nobody expects that."""
    return patience_ms(probes.liveness) if probes.liveness and is_told(probes.liveness) else None


def describe(kind: str, detail: str) -> str:
    """A failing probe in words for a person: first what was found. No count: it would be news at each failure."""
    return f"{detail} ({kind} probe)" if detail else f"{kind} probe failed"
