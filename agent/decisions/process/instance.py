"""One instance from wish to end: `step` takes what happened and tells what is to be done about it.

Rules: one process at a time, and none once a stop was asked for; one path for every restart, whatever caused it; the
stop signal goes out once per process; an instance whose policy is "always" is tried for ever.
"""

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from agent.decisions.process import drain, health, restart
from agent.decisions.process.state import (
    AcceptLeft,
    Action,
    Adopted,
    CloseProcess,
    ConnectionsLeft,
    Decision,
    DropNotice,
    Emit,
    Ending,
    Event,
    Exited,
    FollowMain,
    History,
    InstanceMachine,
    KillTree,
    Launched,
    LaunchFailed,
    LaunchNow,
    LaunchWithheld,
    Level,
    Noticed,
    Probed,
    ShowNotice,
    Signal,
    Start,
    StopAsked,
    StopProbe,
    Tally,
    Terms,
    Tick,
    Turn,
    Wake,
    WatchConnections,
    entered,
)
from agent.errors import invariant
from agent.model.units import Instant, Milliseconds, say_duration

WAIT_ON_SLOT_MS: Final = 10_000
"""So long connections wait on a slot for its next process; if that takes longer, they are closed and counted."""


def new(terms: Terms, now: Instant) -> InstanceMachine:
    return InstanceMachine(terms=terms, since=now, launched=now)


def step(state: InstanceMachine, event: Event, now: Instant) -> Decision:
    """Decide. Events that can no longer matter change nothing; impossible ones raise `InvariantBrokenError`."""
    state, actions = _take(state, event, now)
    state, later = _pass_time(state, now)
    wakes = [Wake(at=at) for at in _next_wake(state)]
    return Decision(state=state, actions=(*actions, *later, *wakes))


def _take(state: InstanceMachine, event: Event, now: Instant) -> Turn:
    match event:
        case Start():
            return _launch(state, now) if state.launch == 0 and not state.stop_asked else (state, ())
        case Adopted():
            return _adopted(state, event, now)
        case Launched():
            return _launched(state, event, now)
        case LaunchFailed():
            return _launch_failed(state, event, now)
        case LaunchWithheld():
            invariant(state.launching and state.stop_asked, "a launch was withheld that nobody ordered, or stopped")
            return _stopped(replace(state, launching=False), now, "")
        case Exited():
            return _exited(state, event, now)
        case Probed():
            return health.probed(state, event, now)
        case Noticed():
            state, follows = _followed(state, event)
            state, actions = health.noticed(state, event, now)
            return state, (*follows, *actions, DropNotice(launch=event.launch))
        case StopAsked():
            return _stop_asked(state, event, now)
        case ConnectionsLeft():
            ending = state.ending
            return _signal(state, now) if ending and drain.may_end_early(ending, event, now) else (state, ())
        case Tick():
            return state, ()


# Launch


def _launch(state: InstanceMachine, now: Instant) -> Turn:
    invariant(state.pid is None and not state.launching, "a process still lives")
    invariant(not state.stop_asked, "the instance is to stop")
    launch = state.launch + 1
    fresh = replace(
        entered(state, "starting", now, state.last_end if state.state == "backoff" else state.detail),
        launch=launch,
        launching=True,
        retry_at=None,
        started=False,
        started_at=None,
        ready=False,
        start_ms=None,
        startup=Tally(),
        readiness=Tally(),
        liveness=Tally(),
        condition="",
        alive=None,
        extended=None,
    )
    return fresh, (LaunchNow(launch=launch),)


def _launched(state: InstanceMachine, event: Launched, now: Instant) -> Turn:
    invariant(state.launching, "a process was started that nobody ordered")
    state = replace(state, launching=False, pid=event.pid, launched=now)
    told = Emit(text="started", fields={"pid": event.pid, "launch": state.launch})
    if state.stop_asked:
        state, actions = _drain(state, state.linger_ms, now)
    else:
        state, actions = health.begun(state, now)
    return state, (told, *actions)


def _launch_failed(state: InstanceMachine, event: LaunchFailed, now: Instant) -> Turn:
    invariant(state.launching, "a launch failed that nobody ordered")
    state = replace(state, launching=False)
    told = Emit(text="could not be started", fields={"errno": event.errno, "reason": event.what}, level="warning")
    if state.stop_asked:
        state, actions = _stopped(state, now, "")
        return state, (told, *actions)
    delay = restart.launch_delay_ms(state.terms.restart, event.errno, event.jitter)
    state = replace(entered(state, "exec_failed", now, event.what), retry_at=now.after(delay))
    return state, (told, *_give_up_queue(state, delay))


def _followed(state: InstanceMachine, event: Noticed) -> Turn:
    """It names another process its main one, as after a fork into the background or an upgrade of itself."""
    if event.main_pid is None or event.launch != state.launch or state.pid in (None, event.main_pid):
        return state, ()
    told = Emit(text="has another main process", fields={"pid": event.main_pid, "was": state.pid or 0})
    return replace(state, pid=event.main_pid), (told, FollowMain(pid=event.main_pid))


# After the agent's own death


def _adopted(state: InstanceMachine, event: Adopted, now: Instant) -> Turn:
    """Go on from the stored state. Every action may have been performed already, and is again; the process is left."""
    if state.state == "stopped" or (event.pid is None and not state.launching):
        return state, ()
    if event.pid is None:  # ordered, and never started
        state = replace(state, launching=False)
        return _stopped(state, now, "") if state.stop_asked else _launch(state, now)
    if state.launching:
        return _launched(state, Launched(pid=event.pid), now)
    told = Emit(text="adopted", fields={"pid": event.pid, "launch": state.launch})
    state = replace(health.taken_up(state, now), pid=event.pid)
    if not state.started and state.ending is None:
        return state, (told, *health.asked(state, "startup", now, spread=True))
    readiness = health.asked(state, "readiness", now, spread=True) if state.started else ()
    if state.ending is None:
        return state, (told, *readiness, *health.asked(state, "liveness", now, spread=True))
    return state, (told, *_end_on(state, event), *(readiness if state.stop_asked else ()))


def _end_on(state: InstanceMachine, event: Adopted) -> tuple[Action, ...]:
    """What belongs to the phase that the end had come to. What was perhaps not sent is sent."""
    ending = state.ending
    notice: tuple[Action, ...] = (ShowNotice(),) if state.stop_asked else ()
    if ending is not None and ending.phase == "linger":
        return (*notice, WatchConnections()) if state.terms.listens else notice
    if ending is not None and ending.phase == "killing":
        return (*notice, KillTree())
    return notice if event.signalled else (*notice, Signal(name=state.terms.stop.signal))


# Stop


def _stop_asked(state: InstanceMachine, event: StopAsked, now: Instant) -> Turn:
    if state.stop_asked or state.state == "stopped":
        return state, ()
    state = replace(state, stop_asked=True, linger_ms=event.linger_ms, retry_at=None)
    if state.pid is not None:
        return _drain(state, event.linger_ms, now)
    if state.launching:
        return entered(state, "draining", now), ()
    return _stopped(state, now, "")


def _drain(state: InstanceMachine, linger_ms: Milliseconds | None, now: Instant) -> Turn:
    listens = state.terms.listens
    actions: tuple[Action, ...] = (
        Emit(text="draining"),
        StopProbe(kind="startup"),
        StopProbe(kind="liveness"),
        ShowNotice(),
    )
    state = entered(state, "draining", now)
    if state.ending is not None:
        # A probe has ended it already: it has its signal and its grace.
        return state, actions
    ending = drain.lingering(state.terms.stop, linger_ms, now, listens=listens)
    watch: tuple[Action, ...] = (WatchConnections(),) if listens else ()
    return replace(state, ending=ending), (*actions, *watch)


def _signal(state: InstanceMachine, now: Instant) -> Turn:
    stop = state.terms.stop
    return replace(state, ending=drain.signalled(stop.grace_ms, now)), (Signal(name=stop.signal),)


def _stopped(state: InstanceMachine, now: Instant, detail: str) -> Turn:
    actions: tuple[Action, ...] = (Emit(text="stopped"),)
    if state.terms.listens:
        actions = (AcceptLeft(), *actions)
    return replace(entered(state, "stopped", now, detail), retry_at=None), actions


# After an end


def _exited(state: InstanceMachine, event: Exited, now: Instant) -> Turn:
    if event.pid is not None and event.pid != state.pid:
        return state, ()  # it was the main process, and is not any more
    invariant(state.pid is not None, "a process ended that was not there")
    by_probe = state.ending is not None and not state.stop_asked
    detail = state.detail if by_probe else restart.describe(event)
    gone: tuple[Action, ...] = (KillTree(), CloseProcess(), _told_of(state, event, now))
    state = replace(_healed(state, now), pid=None, ending=None, started=False, ready=False)
    if state.stop_asked:
        state, actions = _stopped(state, now, "")
    elif restart.comes_back(state.terms.restart, failed=by_probe or not restart.is_clean(event)):
        state, actions = _restart(state, detail, event.jitter, now)
    else:
        state, actions = _stopped(state, now, detail)
    return state, (*gone, *actions)


def _told_of(state: InstanceMachine, event: Exited, now: Instant) -> Emit:
    """All that is known of an end. It is `expected` where we asked for it: by a stop (`ordered`), or for a probe."""
    how: dict[str, str | int] = {"pid": state.pid or 0, "how": restart.describe(event)}
    if event.code is not None:
        how["code"] = event.code
    elif event.signal is not None:
        how |= {"signal": restart.signal_name(event.signal), "core": event.dumped_core}
    else:
        how["code"] = "unknown"
    weighed: dict[str, str | int] = {
        "clean": restart.is_clean(event),
        "expected": state.ending is not None or state.stop_asked,
        "ordered": state.stop_asked,
        "uptime_ms": now.boottime_ms - state.launched.boottime_ms,
    }
    if for_memory := restart.is_for_memory(event):
        weighed["reason"] = "oom"
    level: Level = "warning" if for_memory else "info"
    return Emit(text="exited", fields={**how, **weighed, **event.used}, level=level)


def _restart(state: InstanceMachine, detail: str, jitter: float, now: Instant) -> Turn:
    """The one path back, after whatever end."""
    policy = state.terms.restart
    delay = restart.delay_ms(policy, state.history.attempts, jitter)
    history = restart.counted(state.history, policy, now.boottime_ms)
    told: tuple[Action, ...] = ()
    if history.crash_looping and not state.history.crash_looping:
        fields: dict[str, str | int] = {"restarts": history.attempts, "reason": detail}
        told = (Emit(text="is in a crash loop", fields=fields, level="warning"),)
    state = replace(state, restarts=state.restarts + 1, history=history, detail=detail, last_end=detail)
    if delay == 0:
        state, actions = _launch(state, now)
        return state, (*told, *actions)
    again = f"{detail}; starts again after {say_duration(delay)}"
    state = replace(entered(state, "backoff", now, again), retry_at=now.after(delay))
    return state, (*told, *_give_up_queue(state, delay))


def _give_up_queue(state: InstanceMachine, delay: Milliseconds) -> tuple[Action, ...]:
    return (AcceptLeft(),) if state.terms.listens and delay > WAIT_ON_SLOT_MS else ()


# Time


def _pass_time(state: InstanceMachine, now: Instant) -> Turn:
    if state.ending and drain.is_due(state.ending, now):
        return _signal(state, now) if state.ending.phase == "linger" else _kill(state, state.ending, now)
    if state.retry_at and now.boottime_ms >= state.retry_at.boottime_ms:
        return _launch(state, now)
    silence = health.silence_due(state)
    if silence and now.boottime_ms >= silence.boottime_ms:
        return health.silent(state, now)
    return _healed(state, now), ()


def _kill(state: InstanceMachine, ending: Ending, now: Instant) -> Turn:
    text = "outlived SIGKILL" if ending.phase == "killing" else "outlived its grace"
    told = Emit(text=text, level="warning")
    return replace(state, ending=drain.killing(now)), (told, KillTree())


def _healed(state: InstanceMachine, now: Instant) -> InstanceMachine:
    """Forget earlier restarts once the instance was healthy long enough."""
    healthy_ms = now.boottime_ms - state.since.boottime_ms
    if state.state == "ready" and healthy_ms >= state.terms.restart.reset_after_ms:
        return replace(state, history=History())
    return state


def _next_wake(state: InstanceMachine) -> Iterator[Instant]:
    due = (state.ending and state.ending.until, state.retry_at, health.silence_due(state))
    moments = [moment for moment in due if moment]
    if state.state == "ready" and state.history != History():
        moments.append(state.since.after(state.terms.restart.reset_after_ms))
    if moments:
        yield min(moments, key=lambda moment: moment.boottime_ms)
