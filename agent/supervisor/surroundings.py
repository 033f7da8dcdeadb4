"""What all processes of one agent share: folders, journals, the FD store, cgroups, and how they are started.

Rules: file work of an instance is done at once where its folder lies in memory, as /run does, and nothing has to wait
for the service manager: that takes less than to hand it to a thread. Elsewhere a thread does it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import anyio
from anyio import to_thread
from msgspec import Struct

from agent.decisions.process.state import Level
from agent.linux import cgroup, procfs
from agent.linux.fdstore import FdStore, Inherited
from agent.linux.killtree import APART, NO_PID, Tree
from agent.linux.launcher import Launcher
from agent.linux.spawn import Rlimits
from agent.model.ids import AppName, EnvironmentName
from agent.model.process import ProbeKind
from agent.supervisor.folder import Folder
from agent.supervisor.guards import Guards
from agent.supervisor.launchable import InstanceKey
from agent.supervisor.logs import Logs
from agent.supervisor.records import Records

PROBES: Final = "probe."
"""What the leaves of the commands of probes, below the instance's, begin with."""

OnChange = Callable[[AppName, EnvironmentName], None]
OnEvent = Callable[[InstanceKey, str, Mapping[str, str | int], Level], None]
P = ParamSpec("P")
T = TypeVar("T")


class Surroundings(Struct, frozen=True, kw_only=True):
    """What all processes of one agent share."""

    run_dir: Path
    records: Records
    logs: Logs
    store: FdStore
    inherited: Inherited
    guards: Guards
    launcher: Launcher
    in_memory: bool = False
    """Whether `run_dir` is."""
    jitter: Callable[[], float]
    """Draws in 0..1."""
    cgroup_root: Path | None = None
    has_room: Callable[[], bool] = lambda: True
    """Whether leaves can be made below `cgroup_root` by now; blocking, may fail with OSError."""
    rlimits: Rlimits = {}
    """What instances have in place of the agent's own limits."""
    launches: anyio.Semaphore
    """So many are started at once; the others wait in the order in which they came."""
    on_change: OnChange
    on_event: OnEvent

    async def do(self, words: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do file work, which says so many words to the service manager."""
        if self.is_done_at_once(words):
            return work(*args, **kwargs)
        return await to_thread.run_sync(partial(work, *args, **kwargs))

    def is_done_at_once(self, words: int) -> bool:
        """Whether no thread is needed for such work."""
        return self.in_memory and self.store.has_room(words)

    def folder(self, key: InstanceKey) -> Folder:
        return Folder(self.run_dir, str(key))

    def tree(self, key: InstanceKey, pid: int = NO_PID, start_time: int | None = None) -> Tree:
        """How the processes of `key` are known, now and to a next agent."""
        leaf = f"{self.cgroup_root}/{key}" if self.cgroup_root else None
        mark = f"ROLLWAY_DRAIN_FILE={self.run_dir}/i/{key}/drain"
        return Tree(pid=pid, start_time=start_time, mark=mark, cgroup=leaf)

    def beside(self, key: InstanceKey, kind: ProbeKind) -> Tree:
        """How the processes of a probe's command are known, which are none of the instance's."""
        leaf = f"{self.cgroup_root}/{key}/{PROBES}{kind}" if self.cgroup_root else None
        return Tree(pid=NO_PID, mark=f"{APART}{self.folder(key).name}/{kind}", cgroup=leaf)

    def left_beside(self) -> list[Tree]:
        """What is left of such commands of an earlier agent. Walks /proc: call it in a thread."""
        marks = procfs.marks(f"{APART}{self.run_dir}/i/")
        leaves = cgroup.leaves(self.cgroup_root, f"*/{PROBES}") if self.cgroup_root else []
        marked = [Tree(pid=NO_PID, mark=mark) for mark in sorted(marks)]
        return marked + [Tree(pid=NO_PID, mark="", cgroup=str(leaf)) for leaf in leaves]

    def marked(self) -> set[InstanceKey]:
        """Of whom processes live, whatever is on record. Walks /proc: call it in a thread."""
        above = f"ROLLWAY_DRAIN_FILE={self.run_dir}/i/"
        names = (mark.removeprefix(above).partition("/")[0] for mark in procfs.marks(above))
        return {key for name in names if (key := InstanceKey.parse(name)) is not None}
