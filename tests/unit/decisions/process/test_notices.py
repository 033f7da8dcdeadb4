"""What a process says of itself by sd_notify: it starts, is ready, lives on, or is ended for its silence."""

import pytest

from agent.decisions.process.state import (
    Adopted,
    ConnectionsLeft,
    DropNotice,
    Exited,
    FollowMain,
    Launched,
    LaunchNow,
    Noticed,
    Signal,
    StartProbe,
    StopAsked,
    Terms,
    Tick,
    durable,
)
from agent.model.process import HttpCheck, NotifyCheck, Probe, Probes, StopPolicy
from tests.unit.decisions.process.test_instance import running

STARTUP = Probe(check=NotifyCheck(), period_ms=1_000, failures=30)
READINESS = Probe(check=NotifyCheck())
WATCHDOG = Probe(check=NotifyCheck(), period_ms=1_000, failures=3, grace_ms=2_000)
ASKED = Probe(check=HttpCheck(path="/ready"))
READY = Noticed(launch=1, condition="ready")
STOPPING = Noticed(launch=1, condition="stopping")
RELOADING = Noticed(launch=1, condition="reloading")
ALIVE = Noticed(launch=1, watchdog="ping")


def test_ready_is_what_says_so() -> None:
    """With a startup probe of kind notify nothing is asked; READY=1 makes the instance ready, at once."""
    life = running(Terms(probes=Probes(startup=STARTUP)))
    assert not [action for action in life.actions if isinstance(action, StartProbe)]
    assert (life.shown(), life.state.detail) == ("starting", "it has not said READY=1 yet (startup probe)")
    assert life.take(READY, after_ms=29_000) == [DropNotice(launch=1)]
    assert (life.shown(), life.state.detail) == ("ready", "")


def test_silence_at_the_start_is_a_failed_start() -> None:
    """What does not say READY=1 in its time is ended and started again, and the reason is said."""
    life = running(Terms(probes=Probes(startup=STARTUP)))
    assert life.wake_ms == 30_000
    life.take(Tick(), after_ms=30_000)
    assert Signal(name="SIGTERM") in life.actions
    assert life.state.detail == "it did not say READY=1 for 30 s (startup probe)"
    life.take(Exited(code=None, signal=15, jitter=0.0))
    assert (life.actions[-1], life.state.restarts) == (LaunchNow(launch=2), 1)
    life.take(Launched(pid=72), READY)
    assert life.shown() == "starting", "it was the process before that had said so"


def test_who_asks_for_time_to_start_gets_it() -> None:
    """EXTEND_TIMEOUT_USEC counts from when it is said; silence after that is a failure again."""
    life = running(Terms(probes=Probes(startup=STARTUP)))
    life.take(Noticed(launch=1, more_ms=60_000), after_ms=20_000)
    assert life.wake_ms == 80_000
    life.take(Noticed(launch=1, more_ms=1_000), after_ms=1_000)
    assert life.wake_ms == 80_000, "less time than it has already takes nothing away"
    life.take(Tick(), after_ms=59_000)
    assert Signal(name="SIGTERM") in life.actions


def test_readiness_by_what_it_says() -> None:
    """READY=1 lets it in, RELOADING=1 and STOPPING=1 take it out; it is never restarted for either."""
    life = running(Terms(probes=Probes(readiness=READINESS)))
    assert life.shown() == "starting"
    seen = []
    for notice in (READY, RELOADING, READY, STOPPING, Noticed(launch=1), READY):
        life.take(notice, after_ms=1_000)
        seen.append((life.shown(), life.state.detail))
    reloading, stopping = "it says that it is reloading", "it says that it is stopping"
    ready = ("ready", "")
    assert seen == [ready, ("unready", reloading), ready, ("unready", stopping), ("unready", stopping), ready]
    assert life.state.ending is None


def test_what_says_it_is_stopping_gets_no_traffic_whatever_its_probes_find() -> None:
    """A probe that still passes does not bring back who has said STOPPING=1, nor one who has no readiness probe."""
    for probes, may_come_back in ((Probes(readiness=ASKED), False), (Probes(), True)):
        life = running(Terms(probes=probes))
        life.probed("readiness", "ok")
        assert life.shown() == "ready"
        life.take(STOPPING)
        assert life.shown() == "unready"
        life.probed("readiness", "ok")
        assert life.shown() == "unready"
        life.take(READY)
        assert (life.shown() == "ready") is may_come_back


def test_what_is_asked_is_not_ready_for_saying_so() -> None:
    """READY=1 means nothing where a probe asks: what the app declares is what counts."""
    life = running(Terms(probes=Probes(readiness=ASKED)))
    life.take(READY)
    assert life.shown() == "starting"
    life = running(Terms(probes=Probes(startup=ASKED)))
    life.take(READY)
    assert life.shown() == "starting"


def test_a_watchdog_that_is_not_fed_restarts() -> None:
    """Each WATCHDOG=1 gives three periods more; without it the instance is ended, with the grace of its probe."""
    life = running(Terms(probes=Probes(liveness=WATCHDOG)))
    for _ in range(10):
        life.take(ALIVE, after_ms=2_900)
        assert life.shown() == "ready"
        assert life.wake_ms == life.now_ms + 3_000
    life.take(Tick(), after_ms=3_000)
    assert Signal(name="SIGTERM") in life.actions
    assert life.state.detail == "it did not say WATCHDOG=1 for 3 s (liveness probe)"
    assert life.wake_ms == life.now_ms + 2_000


def test_who_says_that_it_does_not_work_is_ended_at_once() -> None:
    """WATCHDOG=trigger needs no patience."""
    life = running(Terms(probes=Probes(liveness=WATCHDOG)))
    life.take(Noticed(launch=1, watchdog="trigger"))
    assert Signal(name="SIGTERM") in life.actions
    life = running(Terms())
    life.take(Noticed(launch=1, watchdog="trigger"))
    assert life.shown() == "ready", "nobody declared a watchdog"


def test_while_draining_nothing_restarts_and_time_can_be_had() -> None:
    """An instance that is to stop is not ended for its silence; what it asks for is added to its grace."""
    life = running(Terms(probes=Probes(liveness=WATCHDOG), stop=StopPolicy(grace_ms=10_000), listens=True))
    life.take(StopAsked())
    life.take(Tick(), after_ms=5_000)
    assert Signal(name="SIGTERM") not in life.actions
    life.take(ConnectionsLeft(queued=0, established=0, syn_received=0))
    assert Signal(name="SIGTERM") in life.actions
    life.take(Noticed(launch=1, more_ms=60_000), after_ms=5_000)
    assert life.wake_ms == life.now_ms + 60_000
    life.take(Noticed(launch=1, more_ms=1))
    assert life.wake_ms == life.now_ms + 60_000


def test_another_main_process_is_followed() -> None:
    """From MAINPID on that process is the instance: its end counts, and the end of the one before does not."""
    life = running(Terms())
    assert life.take(Noticed(launch=1, main_pid=72)) == [FollowMain(pid=72), DropNotice(launch=1)]
    assert (life.shown(), life.state.pid) == ("ready", 72)
    assert life.take(Noticed(launch=1, main_pid=72)) == [DropNotice(launch=1)], "it is already"
    assert life.take(Noticed(launch=0, main_pid=73)) == [DropNotice(launch=0)], "a process before has said that"
    assert life.take(Exited(code=0, signal=None, pid=71, jitter=0.0)) == []
    life.take(Exited(code=1, signal=None, pid=72, jitter=0.0))
    assert life.state.restarts == 1


def test_who_follows_is_not_signalled_again() -> None:
    """A process that hands over after its stop signal is not signalled again; its grace goes on."""
    life = running(Terms(stop=StopPolicy(linger_ms=0, grace_ms=10_000)))
    life.take(StopAsked(), Tick())
    assert Signal(name="SIGTERM") in life.actions
    life.take(Noticed(launch=1, main_pid=72), after_ms=1_000)
    assert Signal(name="SIGTERM") not in life.actions
    assert life.wake_ms == 10_000


def test_a_next_agent_goes_on_with_who_is_there() -> None:
    """Killed between the decision to follow and the record of it, it is told again by the notice that still waits."""
    life = running(Terms())
    life.take(Noticed(launch=1, main_pid=72))
    life.state = durable(life.state)
    life.take(Adopted(pid=71))
    assert life.state.pid == 71
    assert FollowMain(pid=72) in life.take(Noticed(launch=1, main_pid=72))


@pytest.mark.parametrize("said", [True, False])
def test_a_next_agent_hears_what_was_said_meanwhile(said: bool) -> None:  # noqa: FBT001 - a table of two
    """READY=1 that waits unread counts however late; who has said it already need not say it again."""
    life = running(Terms(probes=Probes(startup=STARTUP, readiness=READINESS, liveness=WATCHDOG)))
    if said:
        life.take(READY)
    life.state = durable(life.state)
    life.take(Adopted(pid=71), after_ms=100_000)
    assert not [action for action in life.actions if isinstance(action, StartProbe | Signal)]
    if not said:
        assert life.wake_ms == life.now_ms + 1_000
        life.take(READY, after_ms=500)
    assert life.shown() == "ready"
    assert life.wake_ms == life.now_ms + 3_000
