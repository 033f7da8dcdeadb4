"""A fake process under the real machine of an instance: it boots, answers probes, falters, crashes and leaves."""

import random
from collections.abc import Callable

import msgspec
from msgspec import Struct

from agent.decisions.process import instance
from agent.decisions.process.probe import effective
from agent.decisions.process.state import (
    Action,
    Adopted,
    ConnectionsLeft,
    Event,
    Exited,
    InstanceMachine,
    KillTree,
    Launched,
    LaunchFailed,
    LaunchNow,
    Probed,
    Signal,
    Start,
    StartProbe,
    StopAsked,
    Terms,
    Tick,
    Wake,
    WatchConnections,
    durable,
)
from agent.decisions.swap.state import InstanceView
from agent.model.ids import ReleaseName
from agent.model.process import ProbeKind, ProcessType
from agent.model.units import Instant

HALF = 0.5
NOTHING_LEFT = ConnectionsLeft(queued=0, established=0, syn_received=0)


class Behaviour(Struct, frozen=True, kw_only=True):
    """How a release behaves on a host; as it stands here: well."""

    fetchable: bool = True
    migrates: bool = True
    startable: bool = True
    ready: bool = True
    slow_ms: int = 0
    """How much later than others it becomes ready."""
    crashes: bool = False


GOOD = Behaviour()


class Process:
    """One instance. `changed` is called when its view may have changed, `faltered` when it failed by itself."""

    def __init__(
        self,
        kind: ProcessType,
        slot: int,
        release: ReleaseName,
        behaviour: Behaviour,
        *,
        soon: Callable[[int, Callable[[], None]], None],
        now: Callable[[], Instant],
        rng: random.Random,
        changed: Callable[[], None],
        faltered: Callable[[], None],
    ) -> None:
        self.kind, self.slot, self.release, self.behaviour = kind, slot, release, behaviour
        self._soon, self._now, self._rng, self._changed, self._faltered = soon, now, rng, changed, faltered
        listens = bool(kind.listen)
        terms = Terms(
            stop=kind.stop, restart=kind.restart, probes=effective(kind.probes, listens=listens), listens=listens
        )
        self.machine = instance.new(terms, now())
        self._wakes = 0
        self._gone = False
        self.view = self._seen()
        """As the supervisor shows it."""
        self._take(Start())

    def _seen(self) -> InstanceView:
        machine = self.machine
        return InstanceView(
            process=self.kind.name,
            slot=self.slot,
            release=self.release,
            state=machine.state,
            since=machine.since,
            launched=machine.launched,
            pid=machine.pid,
            restarts=machine.restarts,
            crash_looping=machine.history.crash_looping,
            detail=machine.detail,
            type=self.kind,
        )

    def stop(self, linger_ms: int | None) -> None:
        self._take(StopAsked(linger_ms=linger_ms))

    def vanish(self) -> None:
        """Its host, or the agent that held it, is gone; nothing of it is heard again."""
        self._gone = True

    def adopt(self) -> None:
        """A next agent takes it up as it was stored; a start that was under way may have happened or not."""
        self.machine = msgspec.json.decode(msgspec.json.encode(durable(self.machine)), type=InstanceMachine)
        self._wakes += 1
        pid = self.machine.pid
        if self.machine.launching and self.behaviour.startable and self._rng.random() < HALF:
            pid = 1_000 + self.machine.launch
        self._take(Adopted(pid=pid, signalled=self._rng.random() < HALF))

    def crash(self) -> None:
        """`kill -9` of its main process."""
        if self.machine.pid is not None:
            self._exit(Exited(code=None, signal=9, jitter=self._rng.random()))

    def lose_readiness(self) -> None:
        """Its readiness probe fails for a while."""
        if self.machine.ready and self.kind.probes.readiness is not None:
            self._answer("readiness", self.machine.launch, ok=False)
            self._answer_later("readiness", self._rng.randint(100, 2_000))

    def _take(self, event: Event) -> None:
        if self._gone:
            return
        before = self.machine
        decision = instance.step(before, event, self._now())
        self.machine = decision.state
        self._wakes += 1
        if before.ready and not self.machine.ready and not self.machine.stop_asked:
            self._faltered()
        self.view = self._seen()
        for action in decision.actions:
            self._perform(action)
        self._changed()

    def _perform(self, action: Action) -> None:
        match action:
            case LaunchNow(launch=launch):
                self._soon(self._rng.randint(1, 20), lambda: self._launch(launch))
            case StartProbe(kind=kind):
                self._answer_later(kind, self._rng.randint(50, 800) + self.behaviour.slow_ms)
            case WatchConnections():
                self._soon(self._rng.randint(1_000, 1_500), lambda: self._take(NOTHING_LEFT))
            case Signal():
                launch = self.machine.launch
                self._soon(self._rng.randint(20, 800), lambda: self._exit_of(launch, 15))
            case KillTree() if self.machine.pid is not None:
                launch = self.machine.launch
                self._soon(1, lambda: self._exit_of(launch, 9))
            case Wake(at=at):
                wake = self._wakes
                self._soon(at.boottime_ms - self._now().boottime_ms, lambda: self._tick(wake))

    def _tick(self, wake: int) -> None:
        if wake == self._wakes:
            self._take(Tick())

    def _launch(self, launch: int) -> None:
        if self.machine.launch != launch or not self.machine.launching:
            return  # it was started while its agent died, or another was
        if not self.behaviour.startable:
            self._take(LaunchFailed(errno=2, what="bin/web: no such file", jitter=self._rng.random()))
            return
        self._take(Launched(pid=1_000 + launch))
        if self.behaviour.crashes:
            self._soon(self._rng.randint(30, 300), lambda: self._exit_of(launch, None))

    def _answer_later(self, kind: ProbeKind, delay_ms: int) -> None:
        launch = self.machine.launch
        self._soon(delay_ms, lambda: self._answer(kind, launch, ok=self.behaviour.ready or kind != "readiness"))

    def _answer(self, kind: ProbeKind, launch: int, *, ok: bool) -> None:
        self._take(Probed(kind=kind, launch=launch, ok=ok, detail="" if ok else "status 503"))

    def _exit_of(self, launch: int, signal: int | None) -> None:
        if self.machine.launch == launch and self.machine.pid is not None:
            code = None if signal else 1
            self._exit(Exited(code=code, signal=signal, jitter=self._rng.random()))

    def _exit(self, how: Exited) -> None:
        self._take(how)
