"""Whether the process has started, is ready, lives on: by what probes find and by what it says itself.

Rules: startup gates the other two. Readiness never restarts; a process that says it is stopping is not ready, whatever
its probes find. Once the end of a process has begun only readiness speaks, and is only reported. Silence of a process
that was to say something ends it like a failed probe.
"""

from msgspec.structs import replace

from agent.decisions.process import drain, probe
from agent.decisions.process.state import (
    Action,
    Emit,
    InstanceMachine,
    Noticed,
    Probed,
    Signal,
    StartProbe,
    StopProbe,
    Turn,
    entered,
)
from agent.model.process import Probe, ProbeKind
from agent.model.units import Instant, say_duration


def asked(state: InstanceMachine, kind: ProbeKind, now: Instant, *, spread: bool = False) -> tuple[Action, ...]:
    """Begin the probe, if there is one and it asks anything, after what is left of its initial delay."""
    declared = _declared(state, kind)
    if declared is None or probe.is_told(declared):
        return ()
    since = (state.launched if kind == "startup" else state.started_at) or now
    left_ms = since.boottime_ms + declared.initial_delay_ms - now.boottime_ms
    return (StartProbe(kind=kind, wait_ms=max(0, left_ms), spread=spread),)


def begun(state: InstanceMachine, now: Instant) -> Turn:
    """The process runs."""
    declared = state.terms.probes.startup
    if declared is None:
        return started(state, now)
    if probe.is_told(declared):
        state = replace(state, detail=probe.describe("startup", "it has not said READY=1 yet"))
    return state, asked(state, "startup", now)


def started(state: InstanceMachine, now: Instant) -> Turn:
    """Nothing gates readiness and liveness any more."""
    state = replace(state, started=True, started_at=now, alive=now)
    state, told = _heard(state, now)
    return state, (*asked(state, "readiness", now), *asked(state, "liveness", now), *told)


def noticed(state: InstanceMachine, event: Noticed, now: Instant) -> Turn:
    if event.launch != state.launch or state.pid is None:
        return state, ()
    if event.more_ms is not None:
        state = _extended(state, now.after(event.more_ms))
    if event.watchdog == "ping":
        state = replace(state, alive=now)
    if event.condition is not None:
        state = replace(state, condition=event.condition)
    if event.watchdog == "trigger" and _silence_ends(state) == "liveness":
        return _ended(state, "liveness", "it says that it does not work", now)
    return _heard(state, now)


def probed(state: InstanceMachine, event: Probed, now: Instant) -> Turn:
    if event.launch != state.launch or state.pid is None:
        return state, ()
    if event.kind == "readiness":
        return _probed_readiness(state, event, now)
    declared = _declared(state, event.kind)
    # Startup speaks until it has passed, liveness from then on; neither once the process is to end.
    if declared is None or _is_ending(state) or state.started != (event.kind == "liveness"):
        return state, ()
    if not probe.counts(event):
        return state, ()
    if event.kind == "startup":
        tally = probe.tallied(state.startup, ok=event.ok)
        state = replace(state, startup=tally)
    else:
        tally = probe.tallied(state.liveness, ok=event.ok)
        state = replace(state, liveness=tally)
    match probe.verdict(tally, declared):
        case "failed":
            return _ended(state, event.kind, event.detail, now)
        case "passed" if event.kind == "startup":
            state, actions = started(state, now)
            return state, (StopProbe(kind="startup"), *actions)
        case "undecided" if event.kind == "startup":
            return replace(state, detail=probe.describe("startup", event.detail)), ()
    return state, ()


def silence_due(state: InstanceMachine) -> Instant | None:
    """Until when the process must have said what it was to say next."""
    kind = _silence_ends(state)
    declared = None if kind is None else _declared(state, kind)
    if declared is None:
        return None
    patience_ms = probe.patience_ms(declared)
    if kind == "liveness":
        return state.alive.after(patience_ms) if state.alive else None
    due = state.launched.after(declared.initial_delay_ms + patience_ms)
    return _later(due, state.extended)


def silent(state: InstanceMachine, now: Instant) -> Turn:
    """It did not say it: end it."""
    kind: ProbeKind = "liveness" if state.started else "startup"
    word = "WATCHDOG=1" if state.started else "READY=1"
    since = (state.alive if state.started else None) or state.launched
    waited = say_duration(now.boottime_ms - since.boottime_ms)
    return _ended(state, kind, f"it did not say {word} for {waited}", now)


def taken_up(state: InstanceMachine, now: Instant) -> InstanceMachine:
    """What it said while there was no agent still waits to be heard: silence counts from now."""
    declared = state.terms.probes.startup
    extended = state.extended
    if declared is not None and probe.is_told(declared) and not state.started:
        extended = _later(now.after(declared.period_ms), extended)
    return replace(state, alive=now if state.started else None, extended=extended)


def _declared(state: InstanceMachine, kind: ProbeKind) -> Probe | None:
    declared: Probe | None = getattr(state.terms.probes, kind)
    return declared


def _is_ending(state: InstanceMachine) -> bool:
    return state.ending is not None or state.stop_asked


def _silence_ends(state: InstanceMachine) -> ProbeKind | None:
    """For which of its probes the process must say something from time to time now, or be ended."""
    kind: ProbeKind = "liveness" if state.started else "startup"
    declared = _declared(state, kind)
    told = probe.is_told(declared)
    return kind if told and state.pid is not None and not _is_ending(state) else None


def _heard(state: InstanceMachine, now: Instant) -> Turn:
    """What follows from what the process says of itself, for what no probe asks."""
    if not state.started:
        over = _silence_ends(state) == "startup" and state.condition == "ready"
        return started(state, now) if over else (state, ())
    declared = state.terms.probes.readiness
    if declared is not None and not probe.is_told(declared) and state.condition != "stopping":
        return state, ()
    may = state.condition == "ready" if declared is not None else state.condition != "stopping"
    if may and not state.ready and (state.ending is None or state.stop_asked):
        return _readied(state, now)
    if state.ready and not may:
        return _unreadied(state, f"it says that it is {state.condition}", now)
    return state, ()


def _probed_readiness(state: InstanceMachine, event: Probed, now: Instant) -> Turn:
    declared = state.terms.probes.readiness
    if declared is None or not state.started or (state.ending and not state.stop_asked):
        return state, ()
    if not probe.counts(event, successes=declared.successes):
        return state, ()
    tally = probe.tallied(state.readiness, ok=event.ok, enough=declared.successes)
    state = replace(state, readiness=tally)
    match probe.verdict(tally, declared, successes=declared.successes):
        case "passed" if not state.ready and state.condition != "stopping":
            return _readied(state, now)
        case "failed" if state.ready:
            return _unreadied(state, probe.describe("readiness", event.detail), now)
    if not event.ok and not state.ready and not state.stop_asked:
        return replace(state, detail=probe.describe("readiness", event.detail)), ()
    return state, ()


def _readied(state: InstanceMachine, now: Instant) -> Turn:
    after_ms = now.boottime_ms - state.launched.boottime_ms
    state = replace(state, ready=True, start_ms=after_ms if state.start_ms is None else state.start_ms)
    shown = state if state.stop_asked else entered(state, "ready", now)
    return shown, (Emit(text="ready", fields={"after_ms": after_ms}),)


def _unreadied(state: InstanceMachine, detail: str, now: Instant) -> Turn:
    state = replace(state, ready=False)
    shown = state if state.stop_asked else entered(state, "unready", now, detail)
    return shown, (Emit(text="unready", fields={"reason": detail}),)


def _ended(state: InstanceMachine, kind: ProbeKind, found: str, now: Instant) -> Turn:
    """A probe ends the process: the signal, at once, and the grace of this kind."""
    declared, detail = _declared(state, kind), probe.describe(kind, found)
    grace_ms = state.terms.stop.grace_ms if declared is None or declared.grace_ms is None else declared.grace_ms
    ending = drain.signalled(grace_ms, now)
    state = replace(entered(state, "unready", now, detail), ready=False, ending=ending)
    stops = (StopProbe(kind="startup"), StopProbe(kind="readiness"), StopProbe(kind="liveness"))
    told = Emit(text="is restarted", fields={"reason": detail}, level="warning")
    return state, (told, *stops, Signal(name=state.terms.stop.signal))


def _extended(state: InstanceMachine, until: Instant) -> InstanceMachine:
    """More time for the start, or for what it does since its stop signal."""
    ending = state.ending
    if ending is not None and ending.phase == "grace":
        ending = replace(ending, until=_later(ending.until, until))
    return replace(state, extended=_later(until, state.extended), ending=ending)


def _later(one: Instant, other: Instant | None) -> Instant:
    return one if other is None or one.boottime_ms >= other.boottime_ms else other
