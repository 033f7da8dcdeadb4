"""What has happened to one instance and waits for its actor, in the order in which it happened.

Bounded: who puts something in waits for room. To wait costs something only where there is nothing to take.
"""

import asyncio
from typing import Final

import anyio

from agent.decisions.process.state import Event

EVENTS_MAX: Final = 16


class Inbox:
    """One actor takes."""

    def __init__(self) -> None:
        self._events: Final[list[Event]] = []  # a deque takes more than ten times what this one does
        self._news: asyncio.Future[None] | None = None
        self._room: anyio.Event | None = None

    async def put(self, event: Event) -> None:
        while len(self._events) >= EVENTS_MAX:
            self._room = self._room or anyio.Event()
            await self._room.wait()
        self._events.append(event)
        self.wake()

    def offer(self, event: Event) -> bool:
        """Put it in where there is room; whether there was."""
        if is_taken := len(self._events) < EVENTS_MAX:
            self._events.append(event)
            self.wake()
        return is_taken

    def wake(self) -> None:
        """Whoever waits in `take` waits no more."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def take(self, within_s: float | None) -> Event | None:
        """The event that waits longest; None where none has come within that time, or before a `wake`."""
        if not self._events:
            await self._wait(within_s)
        if not self._events:
            return None
        if self._room is not None:
            self._room.set()
            self._room = None
        return self._events.pop(0)

    async def _wait(self, within_s: float | None) -> None:
        """By a future and a timer of the loop: an actor waits here several times for each start and each end."""
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        timer = loop.call_later(within_s, self.wake) if within_s is not None else None
        try:
            await self._news
        finally:
            self._news = None
            if timer is not None:
                timer.cancel()
