"""Tells what can be read, by one epoll(7) of our own that the loop watches: an agent has thousands of descriptors.

To watch one through a loop of libuv takes five system calls and half a KiB; here it is one call, and what it tells is
told level-triggered, as by the loop itself.

Rules: one watches a number at a time; who may not be alone watches a copy of it. Ignore it before it is closed: the
service manager may hold the same file open, and then it goes on being told of.
"""

import asyncio
import select
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final

AT_ONCE: Final = 64
"""So many are told of before the loop has its turn."""


class _Watch:
    """Of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll: Final = select.epoll()
        self._calls: Final[dict[int, Callable[[], object]]] = {}
        loop.add_reader(self._epoll.fileno(), self._tell)

    def begin(self, fd: int, call: Callable[[], object]) -> None:
        if fd not in self._calls:
            self._epoll.register(fd, select.EPOLLIN)
        self._calls[fd] = call

    def end(self, fd: int) -> None:
        if self._calls.pop(fd, None) is not None:
            with suppress(OSError):  # closed already, and so told of no more, unless somebody else has it
                self._epoll.unregister(fd)

    def _tell(self) -> None:
        found = [(fd, self._calls.get(fd)) for fd, _ in self._epoll.poll(0, AT_ONCE)]
        for fd, call in found:
            if call is not None and self._calls.get(fd) is call:  # else one before it has changed that
                call()


_watches: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch]] = weakref.WeakKeyDictionary()


def watch(fd: int, call: Callable[[], object]) -> None:
    """Have it called whenever something can be read there, or its other end is gone. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = _watches.get(loop)
    if found is None:
        found = _watches[loop] = _Watch(loop)
    found.begin(fd, call)


def ignore(fd: int) -> None:
    """Call nobody any more; nothing where nobody watches it."""
    if (found := _watches.get(asyncio.get_running_loop())) is not None:
        found.end(fd)


async def readable(fd: int, within_s: float | None = None) -> bool:
    """Wait until something can be read there, or its other end is gone; False: not within that time. Raises OSError."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def wake(is_ready: bool) -> None:  # noqa: FBT001 - one fact
        if not ready.done():
            ready.set_result(is_ready)

    watch(fd, lambda: wake(True))  # noqa: FBT003 - as above
    # A timer alone: a scope around it costs more than all the rest, and launches wait twice each.
    timer = loop.call_later(within_s, wake, False) if within_s is not None else None  # noqa: FBT003 - as above
    try:
        return await ready
    finally:
        if timer is not None:
            timer.cancel()
        ignore(fd)
