"""The end of a whole tree by SIGKILL: nothing of an instance is left, double-forked daemons included.

Rules: with a leaf of cgroup v2 by `cgroup.kill`, without by looking for members again and again until none is found
(each look may race with a fork; what is new is found by the next). Every signal goes to a pidfd whose start time was
compared. Not handled here: the stop signal, which goes to the main process alone.
"""

import os
import signal
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread
from msgspec import Struct

from agent.linux import cgroup, pidfd, procfs
from agent.model.units import Milliseconds

LOOK_AGAIN_S: Final = 0.005
LOOK_AGAIN_AT_MOST_S: Final = 0.2


class Tree(Struct, frozen=True, kw_only=True):
    """How the processes of an instance are known: its main process, which leads the session, its mark, its leaf."""

    pid: int
    mark: str
    cgroup: Path | None = None


async def end_tree(tree: Tree, deadline_ms: Milliseconds = 5_000) -> tuple[int, ...]:
    """Kill until nothing lives; give the pids that still do at the deadline (stuck in the kernel, or not ours)."""
    pause_s = LOOK_AGAIN_S
    with anyio.move_on_after(deadline_ms / 1000):
        while await to_thread.run_sync(_kill_once, tree):
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, LOOK_AGAIN_AT_MOST_S)
        return ()
    return await to_thread.run_sync(members, tree)


def _kill_once(tree: Tree) -> bool:
    """Kill what is there now; whether there was anything."""
    if tree.cgroup is not None and not cgroup.is_empty(tree.cgroup):
        cgroup.kill(tree.cgroup)
        return True
    members = procfs.tree(tree.pid, tree.pid, tree.mark) if tree.cgroup is None else []
    for member in members:
        handle = pidfd.open_pidfd(member.pid, member.start_time)
        if handle is not None:
            pidfd.send_signal(handle, signal.SIGKILL)
            os.close(handle)
    return bool(members)


def members(tree: Tree) -> tuple[int, ...]:
    """Who lives of it now. Without cgroup v2 it walks /proc: call it in a thread."""
    if tree.cgroup is not None:
        return tuple(cgroup.pids(tree.cgroup))
    return tuple(member.pid for member in procfs.tree(tree.pid, tree.pid, tree.mark))
