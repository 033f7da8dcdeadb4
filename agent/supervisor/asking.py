"""Asks on the rhythm of a probe: by a timer of the loop, with a task only for a question that cannot go without.

Hundreds of probes wait nearly all the time, and a task that waits takes 5 KiB. What cannot be asked at all is found
once. Not handled here: what is asked, and what is done about a finding.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from agent.decisions.process.probe import Rhythm, next_ms
from agent.errors import RollwayError
from agent.model.units import Milliseconds
from agent.supervisor import timetable
from agent.supervisor.finding import Finding

Q_contra = TypeVar("Q_contra", contravariant=True)
Question = TypeVar("Question")


class Asker(Protocol[Q_contra]):
    """Asks, and hears each finding and whether it came early; or why nothing can be asked."""

    def knock(self, question: Q_contra, told: Callable[[Finding | None], None]) -> Callable[[], None] | None:
        """Ask, and tell later; what takes the question back, or None where a task is to `ask` it."""

    def heard(self, question: Q_contra, found: Finding, *, early: bool) -> bool:
        """Hear it at once; False where that has to wait: a task is to say it by `found`."""

    async def ask(self, question: Q_contra) -> Finding | None: ...

    async def found(self, question: Q_contra, found: Finding | RollwayError, *, early: bool) -> None: ...


class Asking(Generic[Question]):
    """One question at a time, until cancelled; `tasks` owns them. It begins as it is made."""

    __slots__ = ("_asker", "_due_ms", "_early", "_gap_ms", "_period_ms", "_question", "_take_back", "_tasks", "_timer")

    def __init__(
        self, asker: Asker[Question], question: Question, period_ms: Milliseconds, when: Rhythm, tasks: TaskGroup
    ) -> None:
        self._asker, self._question, self._tasks = asker, question, tasks
        self._period_ms, self._gap_ms, self._early = period_ms, when.gap_ms, False
        self._due_ms: float | None = None
        self._take_back: Callable[[], None] | None = None
        self._timer = timetable.after(when.wait_ms / 1_000, self._turn)

    def cancel(self) -> None:
        self._timer.cancel()
        if self._take_back is not None:
            self._take_back()

    def _turn(self) -> None:
        if self._due_ms is None:
            self._due_ms = asyncio.get_running_loop().time() * 1_000
        self._take_back = self._asker.knock(self._question, self._told)
        if self._take_back is None:
            self._begin(None)

    def _told(self, found: Finding | None) -> None:
        self._take_back = None
        if found is None or self._asker.heard(self._question, found, early=self._early):
            self._go_on()
        else:
            self._begin(found)

    def _begin(self, found: Finding | None) -> None:
        """Ask, or say what is found already, by a task."""
        scope = anyio.CancelScope()
        self._take_back = scope.cancel
        self._tasks.start_soon(self._ask, scope, found)

    async def _ask(self, scope: anyio.CancelScope, known: Finding | None) -> None:
        found: Finding | RollwayError | None = known
        with scope:
            try:
                found = known or await self._asker.ask(self._question)
            except RollwayError as error:
                found = error
            if found is not None:
                await self._asker.found(self._question, found, early=self._early)
        self._take_back = None
        if not scope.cancel_called and not isinstance(found, RollwayError):
            self._go_on()

    def _go_on(self) -> None:
        due_ms, self._early = self._due_ms or 0, self._gap_ms < self._period_ms
        now_ms = asyncio.get_running_loop().time() * 1_000
        self._due_ms = due_ms + self._gap_ms if self._early else next_ms(due_ms, self._period_ms, now_ms)
        self._gap_ms = self._period_ms
        self._timer = timetable.at(self._due_ms / 1_000, self._turn)
