"""What one process says by sd_notify(3), word for word, to the agent and to none but the agent that lives.

Rules: heard is who is of the instance's tree by then, anybody else is passed over and told of once. A word waits in its
socket, which outlives the agent, until it is decided upon: `next` shows it, `drop` takes it off. Who speaks without end
is heard some hundred times a second and waits in its own send.
"""

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

import anyio
import structlog
from anyio import to_thread

from agent.decisions.process.state import Condition, Noticed
from agent.linux import notifysocket
from agent.linux.killtree import Tree, pids
from agent.linux.watch import ignore, watch
from agent.wire.sdnotify import Notice, parse

AT_ONCE: Final = 50
PAUSE_S: Final = 0.1
HEARD_OUT_S: Final = 1.0
"""So long an end waits for what was said before it."""
LEFT_MAX: Final = 1_000
"""More words than wait in any socket (net.unix.max_dgram_qlen)."""
EXTENSION_MS_MAX: Final = 24 * 3_600_000

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Notices:
    __slots__ = ("_dropped", "_heard", "_members", "_since_s", "_socket", "_strangers", "path")

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.path: Final = path
        self._socket: Final = sock
        self._strangers = False
        self._dropped: anyio.Event | None = None
        self._heard = 0
        self._since_s = 0.0
        self._members: frozenset[int] = frozenset()

    @classmethod
    def make(cls, path: str) -> "Notices":
        return cls(notifysocket.bind(path), path)

    @classmethod
    def adopt(cls, path: str, fd: int | None) -> "Notices | None":
        """Take up what an earlier agent had, by a new socket of that path where it did not come back; None without."""
        if fd is not None:
            return cls(socket.socket(fileno=fd), path)
        try:
            return cls.make(path) if os.path.lexists(path) else None
        except OSError:
            return None

    @property
    def fd(self) -> int:
        """What the FD store keeps (`ways`)."""
        return self._socket.fileno()

    def listen(self, begin: Callable[[], None]) -> None:
        """Have this called at the first word that waits, which `next` then gives."""
        watch(self._socket.fileno(), partial(self._is_heard, begin))

    def _is_heard(self, begin: Callable[[], None]) -> None:
        self.ignore()
        begin()

    def ignore(self) -> None:
        """Call nobody any more."""
        ignore(self._socket.fileno())

    async def next(self, tree: Callable[[], Tree]) -> Notice:
        """Wait for the next word of a process of the tree that there is by then."""
        while True:
            said = notifysocket.look(self._socket)
            if said is None:
                await anyio.wait_readable(self._socket)
                continue
            await self._take_turn()
            if await self._is_ours(said.pid, tree()):
                return parse(said.datagram)
            if not self._strangers:
                self._strangers = True
                log.warning("a notice from outside of the instance is ignored", pid=said.pid, path=self.path)
            self.drop()
            await anyio.sleep(PAUSE_S)  # to look for it in the whole tree is dear

    async def _take_turn(self) -> None:
        """Wait where enough was heard for now, whether or not the speaker is so fast that there always is more."""
        over_s = self._since_s + PAUSE_S
        if is_enough := self._heard >= AT_ONCE:
            await anyio.sleep_until(over_s)
        if is_enough or anyio.current_time() >= over_s:
            self._heard, self._since_s = 0, anyio.current_time()
        self._heard += 1

    async def _is_ours(self, pid: int, tree: Tree) -> bool:
        if pid != tree.pid and pid not in self._members:
            self._members = frozenset(await to_thread.run_sync(pids, tree))
        return pid == tree.pid or pid in self._members

    def drop(self) -> None:
        """The word that `next` gave is dealt with."""
        notifysocket.drop(self._socket)
        if self._dropped is not None:
            self._dropped.set()
            self._dropped = None

    @property
    def has_more(self) -> bool:
        """Whether a word waits to be heard."""
        return notifysocket.look(self._socket) is not None

    async def heard_out(self) -> None:
        """Wait until nothing waits to be heard, while somebody hears; who speaks without end is not waited for."""
        if not self.has_more:
            return
        with anyio.move_on_after(HEARD_OUT_S):
            while self.has_more:
                self._dropped = self._dropped or anyio.Event()
                await self._dropped.wait()

    def renew(self) -> None:
        """Another process is to speak: what the one before said and nobody has heard is not its own."""
        for _ in range(LEFT_MAX):
            if notifysocket.look(self._socket) is None:
                break
            notifysocket.drop(self._socket)
        self._strangers, self._members = False, frozenset()

    def close(self) -> None:
        self._socket.close()


def said(notice: Notice, launch: int) -> Noticed:
    """What a word means for the process of this number."""
    condition: Condition | None = None
    if notice.stopping:
        condition = "stopping"
    elif notice.reloading:
        condition = "reloading"
    elif notice.ready:
        condition = "ready"
    more_us = notice.extend_timeout_us
    more_ms = None if more_us is None else min(more_us // 1_000, EXTENSION_MS_MAX)
    return Noticed(
        launch=launch, condition=condition, watchdog=notice.watchdog, more_ms=more_ms, main_pid=notice.main_pid
    )
