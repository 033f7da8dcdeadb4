"""One rollout under way: takes one event at a time, decides, commits, and only then sends.

Rules: of the events that are levels the newest of each kind and host waits, so the inbox is bounded by the fleet; an
operator's words are answered, and few may wait. When the database cannot store a decision, nothing was decided: the
event comes again a little later. A broken invariant ends this rollout as failed, and no other.
"""

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final

import anyio
import structlog
from msgspec import Struct
from msgspec.structs import replace

from agent.decisions.rollout.state import (
    Abort,
    Pause,
    Reachable,
    Reported,
    Resume,
    RolloutDecision,
    RolloutEvent,
    Tick,
    Wake,
)
from agent.decisions.rollout.step import step
from agent.errors import InvariantBrokenError, RefusedError, RollwayError
from agent.linux import clock
from agent.model.rollout import Rollout

WORDS_MAX: Final = 16
AGAIN_S: Final = 1.0
"""After how long a decision is made again that could not be stored."""

Word = Abort | Pause | Resume
Commit = Callable[[RolloutDecision], Awaitable[None]]

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Waiting(Struct):
    """An event that waits; an operator's word is answered, others have nobody who asks."""

    event: RolloutEvent
    answered: anyio.Event | None = None
    error: RollwayError | None = None


class Actor:
    """The owner of one rollout that is not terminal; `run` ends when it is."""

    def __init__(self, rollout: Rollout, commit: Commit) -> None:
        self.rollout = rollout
        self._commit = commit
        self._waiting: dict[object, _Waiting] = {}
        self._filled = anyio.Event()
        self._changed = anyio.Event()
        self._numbers = count()

    def put(self, event: RolloutEvent) -> None:
        """Let `event` be decided on; it replaces an older one of its kind that still waits."""
        self._put(_place(event), _Waiting(event))

    async def say(self, word: Word) -> Rollout:
        """The rollout after an operator's word. Raises RefusedError where its state does not know it."""
        if sum(waiting.answered is not None for waiting in self._waiting.values()) >= WORDS_MAX:
            raise RefusedError(f"too many words to rollout {self.rollout.id} are waiting", "Try again in a moment.")
        answered = anyio.Event()
        asked = _Waiting(word, answered)
        self._put(next(self._numbers), asked)
        await answered.wait()
        if asked.error is not None:
            raise asked.error
        return self.rollout

    async def wait_changed(self, after_ms: int) -> None:
        """Return once the rollout has changed later than `after_ms`."""
        while self.rollout.changed_ms <= after_ms and not self.rollout.terminal:
            await self._changed.wait()

    async def run(self) -> None:
        wake_s: float | None = None
        while not self.rollout.terminal:
            waiting = await self._take(wake_s)
            decision = self._decide(waiting.event)
            if decision.refused:
                waiting.error = RefusedError(decision.refused, "See `rollway rollout show`.")
            try:
                if decision.changed or any(not isinstance(action, Wake) for action in decision.actions):
                    await self._commit(decision)
                wake_s = self._committed(decision)
            except RollwayError as error:
                log.error("a rollout could not be stored", rollout=self.rollout.id, reason=str(error))  # noqa: TRY400 - the disk's fault
                waiting.error = error
                if waiting.answered is None:
                    self._waiting.setdefault(_place(waiting.event), waiting)
                    await anyio.sleep(AGAIN_S)
            if waiting.answered is not None:
                waiting.answered.set()
        self._answer_the_rest()

    def _decide(self, event: RolloutEvent) -> RolloutDecision:
        try:
            return step(self.rollout, event, clock.now())
        except InvariantBrokenError as error:
            log.exception("a rollout broke an invariant", rollout=self.rollout.id)
            failed = replace(
                self.rollout,
                state="failed",
                reason=f"stopped by an error in Rollway itself: {error}",
                changed_ms=max(clock.now().wall_ms, self.rollout.changed_ms + 1),
            )
            return RolloutDecision(state=failed, changed=True)

    def _committed(self, decision: RolloutDecision) -> float | None:
        """Make the committed decision the truth; in how many seconds to look again."""
        self.rollout = decision.state
        if decision.changed:
            self._changed.set()
            self._changed = anyio.Event()
        return next((action.after_ms / 1000 for action in decision.actions if isinstance(action, Wake)), None)

    async def _take(self, wake_s: float | None) -> _Waiting:
        """The event that waits longest; a tick when none came in time."""
        with anyio.move_on_after(wake_s):
            while not self._waiting:
                self._filled = anyio.Event()
                await self._filled.wait()
        return self._waiting.pop(next(iter(self._waiting))) if self._waiting else _Waiting(Tick())

    def _put(self, place: object, waiting: _Waiting) -> None:
        self._waiting.pop(place, None)
        self._waiting[place] = waiting
        self._filled.set()

    def _answer_the_rest(self) -> None:
        for waiting in self._waiting.values():
            if waiting.answered is not None:
                refused = step(self.rollout, waiting.event, clock.now()).refused
                waiting.error = RefusedError(refused, "See `rollway rollout show`.")
                waiting.answered.set()


def _place(event: RolloutEvent) -> object:
    """Events in the same place replace one another."""
    host = event.host if isinstance(event, Reported | Reachable) else ""
    return type(event).__name__, host
