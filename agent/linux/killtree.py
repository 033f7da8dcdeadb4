"""The end of a whole tree by SIGKILL: nothing of an instance is left, double-forked daemons included.

Rules: with a leaf of cgroup v2 by `cgroup.kill`, without by looking for members again and again until none is found
(each look may race with a fork; what is new is found by the next). A look walks through all processes of the machine:
whoever asks for one while another is under way shares the next, so that the end of hundreds takes few. Every signal
goes to a pidfd whose start time was compared. Who cannot be looked for, because no descriptor is left, is not gone:
that is waited out. What is run beside an instance, to probe it, ends with it at the latest, but is none of its
processes: in a leaf below its leaf, or by the mark `APART` besides its own.
Not handled here: the stop signal, which goes to the main process alone.
"""

import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import anyio
import structlog
from anyio import to_thread
from anyio.lowlevel import RunVar
from msgspec import Struct

from agent.linux import cgroup, pidfd, procfs
from agent.model.units import Milliseconds

NO_PID: Final = -1
"""Names no process and no session, whereas 0 would name everybody's."""
APART: Final = "ROLLWAY_PROBE="
LOOK_AGAIN_S: Final = 0.005
LOOK_AGAIN_AT_MOST_S: Final = 0.2
EMPTY_LOOKS: Final = 2
"""So often in a row nobody is found by looking before nobody is there: one may have hopped to a child meanwhile."""

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Tree(Struct, frozen=True, kw_only=True):
    """How the processes of an instance are known: its main process, which leads the session, its mark, its leaf."""

    pid: int
    start_time: int | None = None
    """Of the main process; None where nobody knows, and then the number alone says who it is."""
    mark: str
    cgroup: str | None = None
    main: tuple[int, int] | None = None
    """Number and start time of another process that has become the main one; it may lead a session of its own."""


class _Look:
    """One walk that kills, for all who ask for it before it begins."""

    def __init__(self, turn: anyio.Lock) -> None:
        self.turn: Final = turn
        """For one walk at a time."""
        self.trees: Final[list[Tree]] = []
        self.alive: frozenset[Tree] | None = None
        """Of whom anybody was found."""


_next: Final = RunVar[_Look]("rollway-next-look")


def members(tree: Tree) -> list[procfs.Process]:
    """Who lives of the instance itself. Without cgroup v2 it walks /proc: call it in a thread."""
    if tree.cgroup is not None:  # as hundreds are asked about at once, when all are to end
        found = filter(None, map(procfs.process, cgroup.pids(tree.cgroup)))
        return [one for one in found if one.state not in "ZX"]
    return procfs.families([_family(tree)], APART)[0]


def _family(tree: Tree) -> procfs.Family:
    """A number is not given anew while a session has it: where somebody else has it, both are gone."""
    started = procfs.start_time(tree.pid)
    is_others = None not in (tree.start_time, started) and started != tree.start_time
    pid = NO_PID if is_others else tree.pid
    roots = [pid]
    if tree.main is not None and procfs.start_time(tree.main[0]) == tree.main[1]:
        roots.append(tree.main[0])
    return procfs.Family(tuple(roots), pid, tree.mark)


async def end_tree(tree: Tree, deadline_ms: Milliseconds = 5_000) -> tuple[int, ...]:
    """Kill until nothing lives; give the pids that still do at the deadline (stuck in the kernel, or not ours).

    Only the time counts that passes after a kill. Mostly nobody is left: a cgroup tells that without a thread.
    """
    if _is_empty(tree):
        return ()
    pause_s, waited_s = LOOK_AGAIN_S, 0.0
    while await _with_descriptors(partial(_kill, tree)):
        if waited_s >= deadline_ms / 1000:
            return await _with_descriptors(partial(to_thread.run_sync, pids, tree))
        await anyio.sleep(pause_s)
        waited_s += pause_s
        pause_s = min(pause_s * 2, LOOK_AGAIN_AT_MOST_S)
    return ()


async def end_command(handle: int, tree: Tree) -> tuple[int, ...]:
    """End a child of ours with all that it started, and collect its exit; who survives. Closes the handle."""
    try:
        pidfd.send_signal(handle, signal.SIGKILL)  # it may not have come to its cgroup yet
        survivors = await end_tree(tree)
        with anyio.move_on_after(pidfd.REAPED_WITHIN_S):
            await pidfd.wait_exit(handle)
    finally:
        os.close(handle)
    return survivors


async def _with_descriptors(look: Callable[[], Awaitable[T]]) -> T:
    """What `look` gives, as soon as there are descriptors to look with."""
    told = False
    while True:
        try:
            return await look()
        except OSError as error:
            if not procfs.is_shortage(error):
                raise
            if not told:
                log.warning("processes cannot be ended yet: no descriptor is left to find them", reason=error.strerror)
            told = True
        await anyio.sleep(LOOK_AGAIN_AT_MOST_S)


def _is_empty(tree: Tree) -> bool:
    """Whether a leaf says that nobody is in it; where it cannot be asked now, it is asked again in patience."""
    with contextlib.suppress(OSError):
        return tree.cgroup is not None and cgroup.is_empty(tree.cgroup)
    return False


async def _kill(tree: Tree) -> bool:
    """Kill what is there now; whether there was anything."""
    if tree.cgroup is not None:
        return await to_thread.run_sync(_kill_in, tree.cgroup)
    look = _next.get(None)
    if look is None:
        look = _Look(anyio.Lock())
        _next.set(look)
    look.trees.append(tree)
    async with look.turn:
        if look.alive is None:  # nobody has done it for us, or who wanted to was cancelled
            if _next.get() is look:
                _next.set(_Look(look.turn))
            look.alive = await to_thread.run_sync(_kill_found, look.trees)
    return tree in look.alive


def _kill_in(leaf: str) -> bool:
    if cgroup.is_empty(leaf):
        return False
    cgroup.kill(leaf)
    return True


def _kill_found(trees: Sequence[Tree]) -> frozenset[Tree]:
    """Kill whom a walk finds, and another of those of whom it finds nobody; the trees of whom somebody was found."""
    alive = set[Tree]()
    for _ in range(EMPTY_LOOKS):
        if not (looked := [tree for tree in trees if tree not in alive]):
            break
        for tree, found in zip(looked, procfs.families([_family(tree) for tree in looked]), strict=True):
            for member in found:
                pidfd.send_to(member.pid, member.start_time, signal.SIGKILL)
                alive.add(tree)
    return frozenset(alive)


def pids(tree: Tree) -> tuple[int, ...]:
    """Who lives of the instance itself now. Without cgroup v2 it walks /proc: call it in a thread."""
    if tree.cgroup is not None:
        return tuple(cgroup.pids(tree.cgroup))
    return tuple(member.pid for member in members(tree))
