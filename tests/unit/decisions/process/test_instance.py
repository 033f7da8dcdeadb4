"""The life of one instance as a person would tell it: launched, probed, restarted, drained."""

import errno
from collections.abc import Sequence

import pytest

from agent.decisions.process.instance import new, step
from agent.decisions.process.probe import effective
from agent.decisions.process.state import (
    AcceptLeft,
    Action,
    CloseProcess,
    ConnectionsLeft,
    Emit,
    Event,
    Exited,
    InstanceMachine,
    KillTree,
    Launched,
    LaunchFailed,
    LaunchNow,
    Probed,
    ShowNotice,
    Signal,
    Start,
    StartProbe,
    StopAsked,
    StopProbe,
    Terms,
    Tick,
    Wake,
    WatchConnections,
)
from agent.errors import InvariantBrokenError
from agent.model.process import CrashLoop, HttpCheck, Probe, ProbeKind, Probes, RestartPolicy, StopPolicy
from agent.model.units import Instant

STARTUP = Probe(check=HttpCheck(path="/startup"), failures=2)
READINESS = Probe(check=HttpCheck(path="/ready"), successes=2, failures=2)
LIVENESS = Probe(check=HttpCheck(path="/live"), failures=2, grace_ms=3_000)
ALL = Probes(startup=STARTUP, readiness=READINESS, liveness=LIVENESS)
NONE_LEFT = ConnectionsLeft(queued=0, established=0, syn_received=0)
DIED = Exited(code=1, signal=None, jitter=0.0)


def at(milliseconds: int) -> Instant:
    return Instant("boot", milliseconds, 1_700_000_000_000 + milliseconds)


class Life:
    """One machine, the clock beside it, and what was ordered since one last looked."""

    def __init__(self, terms: Terms) -> None:
        self.now_ms = 0
        self.state: InstanceMachine = new(terms, at(0))
        self.actions: list[Action] = []
        self.emitted: list[str] = []
        self.warned: list[str] = []

    def take(self, *events: Event, after_ms: int = 0) -> list[Action]:
        """Let time pass, then the events happen; what they order, told apart from what is only said."""
        self.now_ms += after_ms
        self.actions = []
        for event in events:
            decision = step(self.state, event, at(self.now_ms))
            self.state = decision.state
            self.actions += [action for action in decision.actions if not isinstance(action, Emit)]
            told = [action for action in decision.actions if isinstance(action, Emit)]
            self.emitted += [action.text for action in told]
            self.warned += [action.text for action in told if action.level == "warning"]
        return self.actions

    def probed(self, kind: ProbeKind, *results: str) -> list[Action]:
        return self.take(
            *(Probed(kind=kind, launch=self.state.launch, ok=result == "ok", detail="status 500") for result in results)
        )

    @property
    def wake_ms(self) -> int | None:
        wakes = [action.at.boottime_ms for action in self.actions if isinstance(action, Wake)]
        return wakes[-1] if wakes else None

    def shown(self) -> str:
        return self.state.state

    def crash_loops(self) -> bool:
        return self.state.history.crash_looping

    def ordered(self) -> list[Action]:
        return [action for action in self.actions if not isinstance(action, Wake)]


def running(terms: Terms) -> Life:
    life = Life(terms)
    life.take(Start())
    life.take(Launched(pid=71))
    return life


def ready(terms: Terms) -> Life:
    life = running(terms)
    if terms.probes.startup:
        life.probed("startup", "ok")
    if terms.probes.readiness:
        life.probed("readiness", "ok", "ok")
    assert life.shown() == "ready"
    return life


def test_without_probes_running_is_ready() -> None:
    """An instance without probes that does not listen is ready as soon as its process runs."""
    life = Life(Terms())
    assert life.take(Start()) == [LaunchNow(launch=1)]
    life.take(Launched(pid=71))
    assert (life.shown(), life.state.pid) == ("ready", 71)


def test_without_probes_a_listening_type_is_ready_when_somebody_accepts() -> None:
    """A listening instance without probes waits for its slot to be served, however long, and is never restarted."""
    life = running(Terms(probes=effective(Probes(), listens=True), listens=True))
    assert life.actions == [StartProbe(kind="startup")]
    for _ in range(1_000):
        life.probed("startup", "fails")
    assert (life.shown(), life.state.restarts, life.ordered()) == ("starting", 0, [])
    life.probed("startup", "ok")
    assert life.shown() == "ready"


def test_readiness_and_liveness_wait_for_startup() -> None:
    """Nothing but the startup probe is asked before it has passed, and it is not asked any more afterwards."""
    life = running(Terms(probes=ALL))
    assert life.actions == [StartProbe(kind="startup")]
    life.probed("readiness", "ok", "ok")
    assert life.shown() == "starting"
    assert life.probed("startup", "ok") == [
        StopProbe(kind="startup"), StartProbe(kind="readiness"), StartProbe(kind="liveness"),
    ]  # fmt: skip
    assert life.shown() == "starting"
    life.probed("readiness", "ok")
    assert life.shown() == "starting"
    life.probed("readiness", "ok")
    assert life.shown() == "ready"


def test_readiness_never_restarts() -> None:
    """Readiness that fails takes an instance out, and lets it in again, but never restarts it."""
    life = ready(Terms(probes=ALL))
    assert life.probed("readiness", *["fails"] * 50) == []
    assert life.shown() == "unready"
    assert life.state.detail == "status 500 (readiness probe)"
    life.probed("readiness", "ok", "ok")
    assert (life.shown(), life.state.detail, life.state.restarts) == ("ready", "", 0)


def test_only_failures_in_a_row_count() -> None:
    """A success in between makes the count of failures start again, for readiness and for liveness."""
    life = ready(Terms(probes=ALL))
    for kind in ("readiness", "liveness"):
        life.probed(kind, *["fails", "ok"] * 20)
    assert (life.shown(), life.state.ending) == ("ready", None)


def test_liveness_restarts_with_its_own_grace() -> None:
    """A dead instance gets its signal once, its own short grace, SIGKILL for the tree, and a new process."""
    life = ready(Terms(probes=ALL, restart=RestartPolicy(policy="on-failure")))
    life.probed("liveness", "fails", "fails")
    stops = [StopProbe(kind="startup"), StopProbe(kind="readiness"), StopProbe(kind="liveness")]
    assert life.ordered() == [*stops, Signal(name="SIGTERM")]
    assert (life.shown(), life.wake_ms) == ("unready", 3_000)
    assert life.probed("liveness", "fails") == [Wake(at=at(3_000))]
    life.take(Tick(), after_ms=3_000)
    assert life.ordered() == [KillTree()]
    life.take(Exited(code=0, signal=None, jitter=0.0))
    assert life.ordered() == [KillTree(), CloseProcess(), LaunchNow(launch=2)]
    assert (life.state.restarts, life.state.detail) == (1, "status 500 (liveness probe)")


def test_startup_that_fails_often_enough_restarts() -> None:
    """An instance that does not start in the time it has is ended and tried again."""
    life = running(Terms(probes=ALL))
    life.probed("startup", "fails")
    assert (life.shown(), life.state.ending) == ("starting", None)
    life.probed("startup", "fails")
    assert Signal(name="SIGTERM") in life.actions
    assert life.take(DIED)[-1] == LaunchNow(launch=2)


def test_results_of_an_earlier_process_do_not_count() -> None:
    """What a probe found out about the crashed process says nothing of the one that followed it."""
    life = running(Terms(probes=ALL))
    life.take(DIED, Launched(pid=72))
    life.take(Probed(kind="startup", launch=1, ok=True))
    assert not life.state.started


# The order of the ends that a person may see: exit, whether it comes back.
ENDS: dict[str, tuple[str, Exited, bool]] = {
    "always, exit 0": ("always", Exited(code=0, signal=None, jitter=0), True),
    "on-failure, exit 0": ("on-failure", Exited(code=0, signal=None, jitter=0), False),
    "on-failure, exit 3": ("on-failure", Exited(code=3, signal=None, jitter=0), True),
    "on-failure, SIGTERM is clean": ("on-failure", Exited(code=None, signal=15, jitter=0), False),
    "on-failure, SIGPIPE is clean": ("on-failure", Exited(code=None, signal=13, jitter=0), False),
    "on-failure, SIGKILL is a failure": ("on-failure", Exited(code=None, signal=9, jitter=0), True),
    "on-failure, unknown is a failure": ("on-failure", Exited(code=None, signal=None, jitter=0), True),
    "never, exit 3": ("never", Exited(code=3, signal=None, jitter=0), False),
}


@pytest.mark.parametrize(("policy", "exited", "back"), ENDS.values(), ids=ENDS)
def test_the_policy_says_what_comes_back(policy: str, exited: Exited, *, back: bool) -> None:
    """After an end by itself an instance comes back, or stops and says how it ended, as its policy says."""
    terms = {"always": RestartPolicy(policy="always"), "never": RestartPolicy(policy="never")}
    life = ready(Terms(restart=terms.get(policy, RestartPolicy(policy="on-failure"))))
    life.take(exited)
    assert (LaunchNow(launch=2) in life.actions) is back
    assert life.shown() == ("starting" if back else "stopped")
    assert life.state.detail


# How it ended, what is said of that, whether want of memory is the reason.
SHORT_OF_MEMORY: dict[str, tuple[Exited, str, bool]] = {
    "killed with the rest": (
        Exited(code=None, signal=9, oom=True, jitter=0), "ran out of memory and was ended by SIGKILL", True,
    ),
    "a shell that was quicker": (
        Exited(code=137, signal=None, oom=True, jitter=0), "ran out of memory and exited with code 137", True,
    ),
    "nobody saw how": (Exited(code=None, signal=None, oom=True, jitter=0), "ran out of memory", True),
    "later, of itself": (Exited(code=0, signal=None, oom=True, jitter=0), "exited with code 0", False),
    "killed by somebody": (Exited(code=None, signal=9, jitter=0), "was ended by SIGKILL", False),
}  # fmt: skip


@pytest.mark.parametrize(("exited", "how", "is_reason"), SHORT_OF_MEMORY.values(), ids=SHORT_OF_MEMORY)
def test_want_of_memory_is_said_where_it_was_the_reason(exited: Exited, how: str, *, is_reason: bool) -> None:
    """An end for want of memory is a warning that says so; an end for another reason does not."""
    decision = step(running(Terms()).state, exited, at(1))
    (told,) = (action for action in decision.actions if isinstance(action, Emit) and action.text == "exited")
    assert (told.fields["how"], told.fields.get("reason")) == (how, "oom" if is_reason else None)
    assert told.level == ("warning" if is_reason else "info")
    assert decision.state.detail == how


def test_backoff_doubles_up_to_its_bound_and_never_gives_up() -> None:
    """First restart at once, then 0.5 s doubled up to 5 min, for ever; a crash loop is said, not punished."""
    life = running(Terms())
    delays = []
    for _ in range(14):
        life.take(DIED)
        delays.append((life.wake_ms or life.now_ms) - life.now_ms)
        life.now_ms = life.wake_ms or life.now_ms
        if life.shown() == "backoff":
            assert life.take(Tick()) == [LaunchNow(launch=life.state.launch)]
        life.take(Launched(pid=100))
    seconds = [0, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert delays == [int(second * 1_000) for second in seconds]
    assert life.crash_loops()
    assert life.emitted.count("is in a crash loop") == 1


def test_a_backoff_says_why_and_how_long_as_people_read_it() -> None:
    """Jitter makes odd milliseconds of every delay; what is shown is rounded."""
    life = running(Terms(restart=RestartPolicy(first_delay_ms=4_000)))
    life.take(Exited(code=3, signal=None, jitter=0.396))
    assert (life.shown(), life.state.detail) == ("backoff", "exited with code 3; starts again after 4.4 s")


def test_a_restart_says_why_as_long_as_it_is_counted() -> None:
    """What ended by itself and is well again says why it was restarted; what was stopped on purpose says nothing."""
    life = running(Terms(probes=ALL))
    assert life.state.why("3 workers") == "3 workers"
    life.take(Exited(code=None, signal=9, jitter=0.0))
    assert (life.shown(), life.state.why("")) == ("starting", "was ended by SIGKILL")
    life.take(Launched(pid=72))
    life.probed("startup", "ok")
    life.probed("readiness", "ok", "ok")
    assert (life.shown(), life.state.why("")) == ("ready", "restarted: was ended by SIGKILL")
    assert life.state.why("3 workers") == "restarted: was ended by SIGKILL; 3 workers"
    life.take(DIED)
    assert (life.shown(), life.state.why("")) == ("backoff", "exited with code 1; starts again after 500 ms")
    life.take(Tick(), after_ms=500)
    assert (life.shown(), life.state.why("")) == ("starting", "exited with code 1")
    life.take(Launched(pid=73), StopAsked())
    life.take(DIED)
    assert (life.shown(), life.state.why("")) == ("stopped", "")


def test_failures_are_warnings_and_the_rest_is_not() -> None:
    """Whoever reads warnings alone sees what could not be started, was restarted, keeps crashing, would not end."""
    life = Life(Terms(probes=ALL))
    life.take(Start())
    life.take(LaunchFailed(errno=2, what="no such file", jitter=0.0))
    life.take(Tick(), after_ms=(life.wake_ms or 0) - life.now_ms)
    life.take(Launched(pid=71))
    life.probed("startup", "ok")
    life.probed("liveness", "bad", "bad")
    life.take(Tick(), after_ms=3_000)
    life.take(Tick(), after_ms=5_000)
    assert life.warned == ["could not be started", "is restarted", "outlived its grace", "outlived SIGKILL"]
    while not life.crash_loops():
        life.take(DIED)
        if life.shown() == "backoff":
            life.take(Tick(), after_ms=(life.wake_ms or 0) - life.now_ms)
        life.take(Launched(pid=72))
    life.take(StopAsked())
    life.take(DIED)
    assert life.warned[4:] == ["is in a crash loop"]
    assert {"started", "exited", "draining", "stopped"} <= set(life.emitted)


def test_jitter_only_adds() -> None:
    """Two instances that crash together do not come back together, and none comes back too early."""
    life = running(Terms(restart=RestartPolicy(first_delay_ms=1_000)))
    life.take(Exited(code=1, signal=None, jitter=1.0))
    assert life.wake_ms == 1_250


def test_a_healthy_time_makes_the_count_start_again() -> None:
    """After `reset_after` in health the next crash is a first one again, and the crash loop is over."""
    life = running(Terms(restart=RestartPolicy(crash_loop=CrashLoop(restarts=2))))
    life.take(DIED, Launched(pid=72), DIED)
    assert life.crash_loops()
    life.take(Tick(), after_ms=500)
    life.take(Launched(pid=73))
    assert life.wake_ms == 600_500
    life.take(Tick(), after_ms=600_000)
    assert not life.crash_loops()
    assert life.take(DIED)[-1] == LaunchNow(launch=4)


def test_a_crash_loop_needs_its_restarts_within_its_window() -> None:
    """Restarts that lie far apart are no crash loop, though the backoff goes on."""
    life = running(Terms(restart=RestartPolicy(crash_loop=CrashLoop(restarts=3, within_ms=1_000))))
    for _ in range(10):
        life.take(DIED, after_ms=400_000)
        life.take(Tick(), after_ms=400_000)
        life.take(Launched(pid=1))
    assert not life.crash_loops()
    assert life.state.history.attempts == 10


def test_what_cannot_be_executed_is_named_and_is_no_crash() -> None:
    """A command that is not there is its own state with its reason, tried again now and then, never a crash."""
    life = Life(Terms(restart=RestartPolicy(policy="never", crash_loop=CrashLoop(restarts=1))))
    life.take(Start(), LaunchFailed(errno=2, what="gunicorn: not found", jitter=0.0))
    assert (life.shown(), life.state.detail, life.wake_ms) == ("exec_failed", "gunicorn: not found", 300_000)
    life.take(Tick(), after_ms=300_000)
    assert life.ordered() == [LaunchNow(launch=2)]
    assert (life.state.restarts, life.crash_loops()) == (0, False)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.ENOMEM])
def test_what_the_machine_lacks_for_a_moment_is_tried_again_soon(number: int) -> None:
    """No descriptor, no memory, no unit yet: that may be over in seconds, and nobody has to correct anything."""
    life = Life(Terms())
    life.take(Start(), LaunchFailed(errno=number, what="the machine", jitter=1.0))
    assert (life.shown(), life.wake_ms) == ("exec_failed", 6_250)


def draining(stop: StopPolicy, linger_ms: int | None = None) -> Life:
    life = ready(Terms(probes=ALL, stop=stop, listens=True))
    life.take(StopAsked(linger_ms=linger_ms))
    return life


def test_a_drain_goes_step_by_step() -> None:
    """Notice, linger, signal once, grace, SIGKILL to the tree, and what waits on the slot is accepted and closed."""
    life = draining(StopPolicy(linger_ms=10_000, signal="SIGINT", grace_ms=30_000))
    quiet = [StopProbe(kind="startup"), StopProbe(kind="liveness")]
    assert life.ordered() == [*quiet, ShowNotice(), WatchConnections()]
    assert (life.shown(), life.wake_ms) == ("draining", 10_000)
    life.take(ConnectionsLeft(queued=0, established=1, syn_received=0), after_ms=5_000)
    assert life.ordered() == []
    life.take(Tick(), after_ms=5_000)
    assert (life.ordered(), life.wake_ms) == ([Signal(name="SIGINT")], 40_000)
    life.take(NONE_LEFT, StopAsked(), Tick())
    assert life.ordered() == []
    life.take(Tick(), after_ms=30_000)
    assert life.ordered() == [KillTree()]
    life.take(Exited(code=None, signal=9, jitter=0.0))
    assert life.ordered() == [KillTree(), CloseProcess(), AcceptLeft()]
    assert (life.shown(), life.state.pid, life.wake_ms) == ("stopped", None, None)


LEFT: dict[str, tuple[ConnectionsLeft, int, bool]] = {
    "nothing left, but too early": (NONE_LEFT, 999, False),
    "nothing left": (NONE_LEFT, 1_000, True),
    "one not yet accepted": (ConnectionsLeft(queued=1, established=0, syn_received=0), 1_000, False),
    "one established": (ConnectionsLeft(queued=0, established=1, syn_received=0), 1_000, False),
    "one in its handshake": (ConnectionsLeft(queued=0, established=0, syn_received=1), 1_000, False),
}


@pytest.mark.parametrize(("left", "after_ms", "ends"), LEFT.values(), ids=LEFT)
def test_linger_ends_early_when_nothing_is_left(left: ConnectionsLeft, after_ms: int, *, ends: bool) -> None:
    """The signal comes before the end of linger only when, after a second, no connection could be hurt by it."""
    life = draining(StopPolicy())
    life.take(left, after_ms=after_ms)
    assert (Signal(name="SIGTERM") in life.actions) is ends


def test_a_worker_lingers_no_longer_than_it_takes_to_see_the_notice() -> None:
    """What does not listen has nothing to linger for: it gets its signal a second after the notice."""
    life = ready(Terms())
    life.take(StopAsked())
    assert life.ordered() == [StopProbe(kind="startup"), StopProbe(kind="liveness"), ShowNotice()]
    assert life.wake_ms == 1_000


def test_the_linger_of_the_wish_to_stop_is_over_the_policy() -> None:
    """A stop that brings its own linger, even none, is obeyed."""
    assert draining(StopPolicy(), linger_ms=2_000).wake_ms == 2_000
    assert Signal(name="SIGTERM") in draining(StopPolicy(), linger_ms=0).actions


def test_draining_readiness_only_reports() -> None:
    """While draining readiness goes on, for whoever reads it; liveness can no longer kill."""
    life = draining(StopPolicy())
    life.probed("readiness", "fails", "fails")
    assert (life.state.ready, life.shown()) == (False, "draining")
    life.probed("readiness", "ok", "ok")
    assert (life.state.ready, life.shown()) == (True, "draining")
    life.probed("liveness", *["fails"] * 9)
    assert Signal(name="SIGTERM") not in life.actions


def test_what_outlives_sigkill_is_killed_again() -> None:
    """A process that hangs in the kernel is killed again and again until it is gone."""
    life = draining(StopPolicy(grace_ms=0), linger_ms=0)
    life.take(Tick())
    assert life.ordered() == [KillTree()]
    assert life.take(Tick(), after_ms=5_000)[0] == KillTree()


# Each way to a state, and whether the stop is done at once.
STATES: dict[str, tuple[Sequence[Event], str]] = {
    "before its launch": ((), "stopped"),
    "while it is launched": ((Start(),), "draining"),
    "starting": ((Start(), Launched(pid=1)), "draining"),
    "in backoff": ((Start(), Launched(pid=1), DIED, Launched(pid=2), DIED), "stopped"),
    "in exec_failed": ((Start(), LaunchFailed(errno=2, what="gone", jitter=0)), "stopped"),
}


@pytest.mark.parametrize(("events", "state"), STATES.values(), ids=STATES)
def test_a_stop_works_in_every_state(events: Sequence[Event], state: str) -> None:
    """Whatever an instance is doing, a stop ends it, and nothing is launched afterwards."""
    life = Life(Terms(probes=ALL, listens=True))
    life.take(*events)
    life.take(StopAsked())
    assert life.shown() == state
    life.take(Tick(), Start(), after_ms=10_000_000)
    assert not any(isinstance(action, LaunchNow) for action in life.actions)


def test_a_stop_during_the_launch_drains_what_was_launched() -> None:
    """A process that comes up after the stop was asked is drained, with the linger that came with the wish."""
    life = Life(Terms())
    life.take(Start(), StopAsked(linger_ms=500), Launched(pid=5))
    assert ShowNotice() in life.actions
    assert life.wake_ms == 500


def test_a_stop_during_a_probes_kill_sends_no_second_signal() -> None:
    """An instance that is already on its way out gets its notice, but no second signal, and does not come back."""
    life = ready(Terms(probes=ALL))
    life.probed("liveness", "fails", "fails")
    life.take(StopAsked())
    assert life.ordered() == [StopProbe(kind="startup"), StopProbe(kind="liveness"), ShowNotice()]
    life.take(DIED)
    assert life.shown() == "stopped"


def test_connections_do_not_wait_for_a_process_that_is_far_away() -> None:
    """What waits on the slot gets the next process if it comes soon, else it is closed rather than kept in silence."""
    soon = running(Terms(listens=True, restart=RestartPolicy(first_delay_ms=10_000)))
    assert AcceptLeft() not in soon.take(DIED)
    late = running(Terms(listens=True, restart=RestartPolicy(first_delay_ms=10_001)))
    assert AcceptLeft() in late.take(DIED)


IMPOSSIBLE: dict[str, Event] = {
    "a launch that nobody ordered": Launched(pid=1),
    "a failed launch that nobody ordered": LaunchFailed(errno=2, what="gone", jitter=0),
    "an end of nobody": DIED,
}


@pytest.mark.parametrize("event", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_the_impossible_is_not_explained_away(event: Event) -> None:
    """An event that cannot be is a mistake of the program, and is named as one."""
    with pytest.raises(InvariantBrokenError):
        Life(Terms()).take(event)
