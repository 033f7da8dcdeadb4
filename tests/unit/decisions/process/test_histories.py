"""What holds for an instance in every history, be it ever so unlucky."""

from collections.abc import Iterator
from typing import Literal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.decisions.process import restart
from agent.decisions.process.instance import new, step
from agent.decisions.process.probe import effective
from agent.decisions.process.state import (
    Adopted,
    Condition,
    ConnectionsLeft,
    Event,
    Exited,
    FollowMain,
    InstanceMachine,
    KillTree,
    Launched,
    LaunchFailed,
    LaunchNow,
    LaunchWithheld,
    Noticed,
    Probed,
    Signal,
    Start,
    StopAsked,
    Terms,
    Tick,
    Wake,
    durable,
)
from agent.model.process import NotifyCheck, Probe, ProbeKind, Probes, RestartPolicy, RestartWhen, StopPolicy, TcpCheck
from agent.model.units import Instant

POLICIES: tuple[RestartWhen, ...] = ("always", "on-failure", "never")
KINDS: tuple[ProbeKind, ...] = ("startup", "readiness", "liveness")
probes = st.none() | st.builds(
    Probe,
    check=st.sampled_from([TcpCheck(), NotifyCheck()]),
    successes=st.integers(1, 3),
    failures=st.integers(1, 3),
    grace_ms=st.none(),
)
terms = st.builds(
    lambda declared, listens, stop, when: Terms(
        stop=stop, restart=RestartPolicy(policy=when), probes=effective(declared, listens=listens), listens=listens
    ),
    st.builds(Probes, startup=probes, readiness=probes, liveness=probes),
    st.booleans(),
    st.builds(StopPolicy, linger_ms=st.integers(0, 20_000), grace_ms=st.integers(0, 40_000)),
    st.sampled_from(POLICIES),
)
conditions: st.SearchStrategy[Condition | None] = st.sampled_from([None, "ready", "reloading", "stopping"])
watchdogs: st.SearchStrategy[Literal["ping", "trigger"] | None] = st.sampled_from([None, "ping", "trigger"])
mains = st.none() | st.integers(6, 8)
passed_ms = st.sampled_from([0, 1, 100, 1_000, 10_000, 400_000, 700_000])


class World:
    """The machine and the one process it may have; checks at every step what must never be."""

    def __init__(self, given_terms: Terms) -> None:
        self.now_ms = 0
        self.state: InstanceMachine = new(given_terms, self.now)
        self.alive = False
        self.ordered = False
        self.main = 7
        """The main process, while one lives."""
        self.stop_asked = False
        self.signals = 0
        self.killed = False
        """SIGKILL was ordered for the process that there is: its end is only to be told."""
        self.launched_at_ms: list[int] = []
        self.wake_ms: int | None = None

    @property
    def now(self) -> Instant:
        return Instant("boot", self.now_ms, self.now_ms)

    def take(self, event: Event) -> None:
        decision = step(self.state, event, self.now)
        self.state, self.wake_ms = decision.state, None
        for action in decision.actions:
            match action:
                case LaunchNow():
                    assert not self.alive, "a launch while a process lives"
                    assert not self.ordered, "a launch while another is under way"
                    assert not self.stop_asked, "a launch after the stop was asked"
                    self.ordered, self.signals, self.main = True, 0, 7
                    self.launched_at_ms.append(self.now_ms)
                case Signal():
                    self.signals += 1
                    assert self.signals == 1, "a second signal for one process"
                case KillTree():
                    self.killed = self.alive
                case FollowMain(pid=pid):
                    assert self.alive, "nobody to follow"
                    self.main = pid
                case Wake(at=moment):
                    self.wake_ms = moment.boottime_ms
        assert self.state.pid in (None, self.main)
        waits = not (self.alive or self.ordered)
        assert not waits or self.wake_ms is not None or self.state.state in ("starting", "stopped"), "waits for nothing"

    def possible(self, data: st.DataObject) -> Event:
        """Draw one of the events that can happen to this process now."""
        jitter = data.draw(st.floats(0, 1))
        kind, launch = data.draw(st.sampled_from(KINDS)), data.draw(st.integers(0, self.state.launch))
        condition, watchdog, main_pid = data.draw(conditions), data.draw(watchdogs), data.draw(mains)
        events: list[Event] = [
            Start(), Tick(),
            Probed(kind=kind, launch=launch, ok=data.draw(st.booleans()), early=data.draw(st.booleans())),
            ConnectionsLeft(queued=0, established=data.draw(st.integers(0, 1)), syn_received=0),
            Noticed(launch=launch, condition=condition, watchdog=watchdog, main_pid=main_pid),
            Exited(code=0, signal=None, pid=9, jitter=jitter),
        ]  # fmt: skip
        if self.ordered:
            events += [Launched(pid=7), LaunchFailed(errno=2, what="gone", jitter=jitter)]
        if self.ordered and self.stop_asked:
            events += [LaunchWithheld()]
        if self.alive:
            code = data.draw(st.none() | st.integers(0, 3))
            events += [Exited(code=code, signal=None, pid=data.draw(st.sampled_from([None, self.main])), jitter=jitter)]
        return data.draw(st.sampled_from(events))

    def happen(self, event: Event) -> None:
        if isinstance(event, Launched | LaunchFailed | LaunchWithheld):
            self.ordered, self.alive = False, isinstance(event, Launched)
        if isinstance(event, Exited) and event.pid in (None, self.main):
            self.alive = self.killed = False
        self.stop_asked = self.stop_asked or isinstance(event, StopAsked)
        self.take(event)

    def agent_dies(self, *, was_started: bool) -> None:
        """A next agent takes up what is stored; a launch that was under way has happened or has not."""
        before = self.state
        self.state = msgspec.json.decode(msgspec.json.encode(durable(before)), type=InstanceMachine)
        if self.ordered:
            self.ordered, self.alive = False, was_started
        self.take(Adopted(pid=self.main if self.alive else None))
        if before.pid is not None:
            assert (self.state.state, self.state.ready, self.state.restarts) == (
                before.state,
                before.ready,
                before.restarts,
            )


def histories(data: st.DataObject, world: World, length: int = 40, *, dies: bool = False) -> Iterator[Event]:
    world.happen(Start())
    for _ in range(data.draw(st.integers(0, length))):
        if dies and data.draw(st.booleans()):
            world.agent_dies(was_started=data.draw(st.booleans()))
        world.now_ms += data.draw(passed_ms)
        event = world.possible(data)
        world.happen(event)
        yield event


@given(st.data(), terms)
def test_one_process_at_a_time_and_every_stop_ends(data: st.DataObject, given_terms: Terms) -> None:
    """Whatever happened before, a stop leads to stopped within linger, grace and a kill, and nothing starts again.

    The agent may die before each event and while the stop goes on: the next one goes on where it was.
    """
    world = World(given_terms)
    for _ in histories(data, world, dies=True):
        pass
    asked_ms = world.now_ms
    world.happen(StopAsked())
    stop = given_terms.stop
    while world.state.state != "stopped":
        if data.draw(st.booleans()):
            world.agent_dies(was_started=data.draw(st.booleans()))
            continue
        if world.killed:
            world.happen(Exited(code=None, signal=9, jitter=0))
            continue
        if world.ordered:
            world.happen(Launched(pid=7))
            continue
        assert world.alive
        assert world.wake_ms is not None, "nothing would ever end it"
        world.now_ms = max(world.wake_ms, world.now_ms)
        world.happen(Tick())
    grace_ms = max(stop.grace_ms, *(p.grace_ms or 0 for p in (given_terms.probes.liveness,) if p), 0)
    assert world.now_ms - asked_ms <= stop.linger_ms + grace_ms
    assert (world.state.pid, world.wake_ms) == (None, None)


@given(st.data(), terms)
def test_launches_are_bounded_and_never_end_by_themselves(data: st.DataObject, given_terms: Terms) -> None:
    """However it fails, an instance that is always to run is tried for ever, never faster than its backoff allows."""
    policy = RestartPolicy()
    world = World(Terms(stop=given_terms.stop, restart=policy, probes=given_terms.probes, listens=given_terms.listens))
    for _ in histories(data, world):
        assert world.state.state != "stopped"
    for first_ms in world.launched_at_ms:
        # Within reset_after the first restart is at once and the others wait 0.5 s, 1 s, 2 s, …
        window = [at for at in world.launched_at_ms if first_ms <= at < first_ms + 8_000]
        assert len(window) <= 2 + 2 + 5


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_no_delay_leaves_its_bounds(attempts: int, jitter: float) -> None:
    """A restart is never earlier than the backoff says and never later than a quarter over its bound."""
    policy = RestartPolicy()
    plain, jittered = restart.delay_ms(policy, attempts, 0.0), restart.delay_ms(policy, attempts, jitter)
    assert plain <= jittered <= plain * 1.25
    assert plain <= policy.max_delay_ms
