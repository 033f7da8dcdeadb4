"""What the end of a main process says: how it ended, and what is known of what it has used.

Rules: of a child the kernel tells that as it is reaped (wait4(2)), of the process alone. Of one that an earlier agent
started only the leaf of its cgroup v2 knows, and of the whole tree: hence other names. What nobody knows is left out.
"""

import contextlib

from agent.decisions.process.state import Exited
from agent.linux import cgroup
from agent.linux.killtree import Tree
from agent.linux.pidfd import ExitStatus
from agent.supervisor.process import Process


def exited(status: ExitStatus, process: Process, jitter: float) -> Exited:
    """The event for the decisions."""
    return Exited(
        code=status.code,
        signal=status.signal,
        dumped_core=status.dumped_core,
        pid=process.main.pid,
        oom=process.ran_out_of_memory(),
        used=used_by(status, process.tree),
        jitter=jitter,
    )


def used_by(status: ExitStatus, tree: Tree) -> dict[str, int]:
    """What is known of it, under the names by which it is told."""
    known: dict[str, int | None] = {}
    if status.used is not None:
        known = {"cpu_ms": status.used.cpu_ms, "max_rss_bytes": status.used.max_rss_bytes}
    elif tree.cgroup is not None:
        with contextlib.suppress(OSError):  # for want of a descriptor nobody can tell
            known = {
                "tree_cpu_ms": cgroup.cpu_ms(tree.cgroup),
                "tree_memory_peak_bytes": cgroup.number(tree.cgroup, "memory.peak"),
            }
    return {name: value for name, value in known.items() if value is not None}
