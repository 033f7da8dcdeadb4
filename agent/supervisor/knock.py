"""Asks whether a process takes connections from its slot: by timers of the loop, without a task.

A listening socket accepts in the kernel, whether or not anybody serves it: a connection counts only once a process has
taken it. Within one machine the handshake is over by the time the kernel returns, so that there is nothing to wait for
but that process, and hundreds of instances are asked so at once as they start. Where it is not, nobody is asked here.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from agent.linux import inetdiag, procfs, sockets
from agent.model.units import Milliseconds, say_duration
from agent.supervisor import timetable
from agent.supervisor.finding import Finding
from agent.supervisor.launchable import Target

FIRST_LOOK_S: Final = 0.001
"""Who accepts has to be woken first."""
LOOK_AGAIN_S: Final = 0.02
Told = Callable[[Finding | None], None]
"""Hears what was found; None where there was nothing to ask with."""


class Knock:
    """One connection, for all who ask the same meanwhile: made by `knock`, it is over when each was told, or left."""

    __slots__ = ("_ended", "_ours", "_timeout_ms", "_timer", "_told", "_until_s")

    def __init__(self, ours: socket.socket, timeout_ms: Milliseconds, ended: Callable[[], None]) -> None:
        self._ours, self._timeout_ms, self._ended = ours, timeout_ms, ended
        self._told: list[Told] = []
        self._until_s = asyncio.get_running_loop().time() + timeout_ms / 1_000
        self._timer = timetable.after(FIRST_LOOK_S, self._look)

    def tell(self, told: Told) -> Callable[[], None]:
        """Have it told what is found; who calls what is returned is told no more."""
        self._told.append(told)

        def leave() -> None:
            if told in self._told:
                self._told.remove(told)
                if not self._told:
                    self._close()

        return leave

    def _look(self) -> None:
        now_s = asyncio.get_running_loop().time()
        found: Finding | None = Finding(ok=True)
        try:
            if not is_taken(self._ours):
                if now_s < self._until_s:
                    self._timer = timetable.at(min(now_s + LOOK_AGAIN_S, self._until_s), self._look)
                    return
                found = no_answer(self._timeout_ms)
        except OSError as error:
            found = cannot_connect(error)
        self._close()
        told, self._told = self._told, []
        for one in told:
            one(found)

    def _close(self) -> None:
        self._timer.cancel()
        self._ours.close()
        self._ended()


def knock(target: Target, timeout_ms: Milliseconds, ended: Callable[[], None]) -> Knock | None:
    """Connect to the slot; None where that takes time, or is refused. `ended` is called once, when it is over."""
    try:
        ours = connecting(target)
    except OSError:
        return None
    if ours.connect_ex((target.host, target.port)) in (0, errno.EISCONN):  # how far the first one came
        return Knock(ours, timeout_ms, ended)
    ours.close()
    return None


def made(target: Target) -> socket.socket:
    """A socket that shows what leads to the slot, not bound yet."""
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    ours = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if target.mark is not None:
            sockets.set_mark(ours, target.mark)
    except OSError:
        ours.close()
        raise
    return ours


def connecting(target: Target) -> socket.socket:
    """A socket on its way to the slot."""
    ours = made(target)
    try:
        if target.source is not None:
            ours.bind((target.source, 0))
        ours.connect_ex((target.host, target.port))
    except OSError:
        ours.close()
        raise
    return ours


def is_taken(ours: socket.socket) -> bool:
    """Whether a process has taken our connection yet: it answers or hangs up, or the kernel says so."""
    try:
        ours.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return inetdiag.is_accepted(ours)
    return True


def no_answer(timeout_ms: Milliseconds) -> Finding:
    return Finding(ok=False, detail=f"no answer within {say_duration(timeout_ms)}", silent=True)


def cannot_connect(error: OSError) -> Finding | None:
    if procfs.is_shortage(error):
        return None
    return Finding(ok=False, detail=f"cannot connect: {os.strerror(error.errno or errno.EIO)}", silent=True)
