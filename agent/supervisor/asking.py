"""Asks on the rhythm of a probe: by a timer of the loop, with a task only while a question is under way.

Hundreds of probes wait nearly all the time, and a task that waits takes 5 KiB. What cannot be asked at all is found
once. Not handled here: what is asked, and what is done about a finding.
"""

import asyncio
from typing import Generic, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from agent.decisions.process.probe import Rhythm, next_ms
from agent.errors import RollwayError
from agent.model.units import Milliseconds
from agent.supervisor.finding import Finding

Q_contra = TypeVar("Q_contra", contravariant=True)
Question = TypeVar("Question")


class Asker(Protocol[Q_contra]):
    """Asks, and hears each finding and whether it came early; or why nothing can be asked."""

    async def ask(self, question: Q_contra) -> Finding | None: ...

    async def found(self, question: Q_contra, found: Finding | RollwayError, *, early: bool) -> None: ...


class Asking(Generic[Question]):
    """One question at a time, until cancelled; `tasks` owns them. It begins as it is made."""

    __slots__ = ("_asker", "_due_ms", "_early", "_gap_ms", "_period_ms", "_question", "_scope", "_tasks", "_timer")

    def __init__(
        self, asker: Asker[Question], question: Question, period_ms: Milliseconds, when: Rhythm, tasks: TaskGroup
    ) -> None:
        self._asker, self._question, self._tasks = asker, question, tasks
        self._period_ms, self._gap_ms, self._early = period_ms, when.gap_ms, False
        self._due_ms: float | None = None
        self._scope: anyio.CancelScope | None = None
        self._timer = asyncio.get_running_loop().call_later(when.wait_ms / 1_000, self._turn)

    def cancel(self) -> None:
        self._timer.cancel()
        if self._scope is not None:
            self._scope.cancel()

    def _turn(self) -> None:
        if self._due_ms is None:
            self._due_ms = anyio.current_time() * 1_000
        self._scope = anyio.CancelScope()
        self._tasks.start_soon(self._ask, self._scope, self._due_ms)

    async def _ask(self, scope: anyio.CancelScope, due_ms: float) -> None:
        with scope:
            try:
                found: Finding | RollwayError | None = await self._asker.ask(self._question)
            except RollwayError as error:
                found = error
            if found is not None:
                await self._asker.found(self._question, found, early=self._early)
        self._scope = None
        if scope.cancel_called or isinstance(found, RollwayError):
            return
        self._early = self._gap_ms < self._period_ms
        now_ms = anyio.current_time() * 1_000
        self._due_ms = due_ms + self._gap_ms if self._early else next_ms(due_ms, self._period_ms, now_ms)
        self._gap_ms = self._period_ms
        self._timer = asyncio.get_running_loop().call_at(self._due_ms / 1_000, self._turn)
