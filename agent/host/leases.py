"""Leases of the singletons of this host: asked for over the link, kept where guards read them, told to the actors.

Rules: the clock is read before a question is sent, and what is answered counts from there. What is asked is the whole
truth of this host: what it leaves out does not live here, and is not started before it was asked for and granted again.
Without a link nothing changes but what people are told; the leases run out by themselves.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Final, Protocol

import anyio
import structlog
from msgspec.structs import replace

from agent.decisions.swap import lease
from agent.decisions.swap.lease import Question
from agent.decisions.swap.state import InstanceView, Lease, Leased, SwapState
from agent.host.assignments import AppKey
from agent.linux import clock
from agent.model.ids import ProcessName
from agent.model.lease import LeaseAnswer, LeaseAsk, LeaseName
from agent.model.units import Instant, Milliseconds
from agent.supervisor.supervisor import Supervisor
from agent.wire.messages import AnswerLeases, AskLeases

AWAY: Final = "the coordinator is away"
OLDER: Final = "the coordinator is of an older version, which grants none"
NOT_HERE: Final = "this host does not belong to the environment"
UNGUARDED: Final = "it cannot be guarded here, see the log of the agent"

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Asker(Protocol):
    """Who decides about one app and environment."""

    state: SwapState

    def put(self, event: Leased) -> None: ...


class Leases:
    def __init__(self, supervisor: Supervisor, askers: Mapping[AppKey, Asker]) -> None:
        self._supervisor, self._guards, self._askers = supervisor, supervisor.guards, askers
        self._guards.changed = self.look
        self._numbers = count(1)
        self._questions: tuple[Question, ...] = ()
        """Of this connection, the newest last."""
        self._answers: dict[LeaseName, LeaseAnswer] = {}
        """What this connection's coordinator said last."""
        self._parts: dict[LeaseName, int] = {}
        """Of totals, how many a coordinator last wanted here."""
        self._lease_ms: Milliseconds | None = None
        """None: there is no link."""
        self.changed = anyio.Event()
        """Set when there is something else to ask."""

    def of(self, key: AppKey, state: SwapState) -> tuple[Lease, ...]:
        """What is known of the leases of an app and environment."""
        declared = [process.name for process in (state.spec.processes if state.spec else ())
                    if process.singleton or (process.total and process.name not in state.shares)]  # fmt: skip
        held = [name.process for name in self._guards.names() if name[:2] == key]
        return tuple(self._known(LeaseName(*key, process)) for process in sorted({*declared, *held})
                     if self._is_decided(LeaseName(*key, process)))  # fmt: skip

    def _shares(self, key: AppKey) -> dict[ProcessName, int]:
        return {name.process: share for name, share in self._parts.items() if name[:2] == key}

    @property
    def hurried(self) -> bool:
        """Whether something ends here if no coordinator is found in time."""
        return bool(self._guards.names())

    def linked(self, lease_ms: Milliseconds | None) -> None:
        """There is a link to a coordinator, which grants so long leases; None: there is none any more."""
        self._lease_ms = lease_ms
        self._answers.clear()
        self._questions = ()
        self.look()

    def look(self) -> None:
        """Something may be different: tell the actors what counts for them, the coordinator what it does not know."""
        for key, asker in self._askers.items():
            known, shares = self.of(key, asker.state), self._shares(key)
            if known != asker.state.leases or not shares.items() <= asker.state.shares.items():
                asker.put(Leased(leases=known, shares=shares))
        newest = self._questions[-1].asks if self._questions else None
        if newest is not None and _meant(self._asks(clock.now())) != _meant(newest):
            self.changed.set()

    def ask(self) -> AskLeases:
        """The question, and give back at once what it leaves out."""
        self.changed = anyio.Event()
        now = clock.now()
        question = Question(number=next(self._numbers), at=now, asks=tuple(self._asks(now)))
        held = {ask.name for ask in question.asks if ask.bound_ms or self._views(ask.name)}
        for name in set(self._guards.names()) - held:
            self._guards.give_back(name)
        self._questions = lease.outstanding(self._questions, question)
        return AskLeases(number=question.number, asks=question.asks)

    async def leave(self) -> None:
        """Everything was drained: what does not live here is not guarded any more."""
        for name in self._guards.names():
            if not self._views(name):
                await self._guards.leave(name)

    async def answered(self, answer: AnswerLeases) -> None:
        """Take what a coordinator says to one of the newest questions."""
        question = next((one for one in self._questions if one.number == answer.number), None)
        if question is None:
            return
        asked = {ask.name: ask for ask in question.asks}
        for one in answer.answers:
            if (ask := asked.get(one.name)) is None:
                continue
            if ask.total:
                self._parts[one.name] = one.share
            elif one.granted:
                await self._renew(question.number, ask, lease.until(question.at, ask.hold_ms))
            else:
                self._guards.revoke(one.name)
            self._answers[one.name] = one
        self.look()

    async def _renew(self, number: int, ask: LeaseAsk, until: Instant) -> None:
        asker = self._askers.get(AppKey(*ask.name[:2]))
        if asker is None:
            return
        stop = lease.stop_policy(asker.state, self._views(ask.name), ask.name.process)
        try:
            await self._guards.renew(ask.name, until, stop)
        except OSError as error:
            log.error("a lease cannot be renewed", lease=str(ask.name), reason=str(error))  # noqa: TRY400
            return
        if not any(one.number == number and ask in one.asks for one in self._questions):
            self._guards.give_back(ask.name)  # while it was written, another question left it out

    def _asks(self, now: Instant) -> Iterator[LeaseAsk]:
        for key, asker in self._askers.items():
            bounds = {name.process: bound for name in self._guards.names() if name[:2] == key
                      if (bound := self._guards.bound(name)) is not None}  # fmt: skip
            yield from lease.asks(asker.state, self._supervisor.views(*key), bounds, self._lease_ms or 0, now)

    def _views(self, name: LeaseName) -> list[InstanceView]:
        return [view for view in self._supervisor.views(name.app, name.environment) if view.process == name.process]

    def _is_decided(self, name: LeaseName) -> bool:
        return not self._lease_ms or name in self._answers or self._guards.until(name) is not None

    def _known(self, name: LeaseName) -> Lease:
        until, answer = self._guards.until(name), self._answers.get(name)
        why = ""
        if self._lease_ms is None:
            why = AWAY
        elif not self._lease_ms:
            why = OLDER
        elif until is None:
            why = UNGUARDED if answer is None or answer.granted else NOT_HERE
        return Lease(process=ProcessName(name.process), until=until, holder=answer.holder if answer else "", why=why)


def _meant(asks: Iterable[LeaseAsk]) -> set[LeaseAsk]:
    """What is asked for, whatever time has passed."""
    return {replace(ask, bound_ms=0) for ask in asks}
