"""What trees of processes use: processor time, memory, threads, open files.

Rules: one walk of /proc serves all trees, however many; with a leaf of cgroup v2 there is none. Who goes while it is
looked at is left out. Blocking, and in proportion to what runs (reading the memory of a large process takes the kernel
milliseconds): call it in a thread, when somebody asks.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct

from agent.linux import cgroup, procfs
from agent.linux.killtree import Tree
from agent.model.figures import MemoryKind
from agent.model.units import Bytes, Milliseconds

K = TypeVar("K")

_PROC: Final = Path("/proc")
_TICK_MS: Final = 1_000 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Usage(Struct, frozen=True, kw_only=True):
    """Of one tree, now. None: it cannot be told."""

    cpu_ms: Milliseconds
    memory_bytes: Bytes | None
    memory_kind: MemoryKind | None
    threads: int
    open_files: int | None


def measure(trees: Mapping[K, Tree]) -> dict[K, Usage]:
    """Look at all trees. Raises OSError where no descriptor is left to look with."""
    walked = procfs.trees({key: (tree.pid, tree.mark) for key, tree in trees.items() if tree.cgroup is None})
    return {
        key: _used(tree.cgroup, walked[key] if tree.cgroup is None else cgroup.pids(tree.cgroup))
        for key, tree in trees.items()
    }


def _used(leaf: str | None, pids: Iterable[int]) -> Usage:
    stats = {pid: stat for pid in pids if (stat := procfs.stat(pid)) is not None}
    cpu_ms = cgroup.cpu_ms(leaf) if leaf is not None else None
    memory_bytes, kind = _memory(leaf, stats)
    return Usage(
        cpu_ms=round(sum(stat.cpu_ticks for stat in stats.values()) * _TICK_MS) if cpu_ms is None else cpu_ms,
        memory_bytes=memory_bytes,
        memory_kind=kind,
        threads=sum(stat.threads for stat in stats.values()),
        open_files=_sum(_open_files, stats),
    )


def _memory(leaf: str | None, stats: Mapping[int, procfs.Stat]) -> tuple[Bytes | None, MemoryKind | None]:
    if leaf is not None and (current := cgroup.number(leaf, "memory.current")) is not None:
        return current, "cgroup"
    if not stats:
        return None, None
    if (pss := _sum(_pss_bytes, stats)) is not None:
        return pss, "pss"
    return sum(stat.rss_pages for stat in stats.values()) * _PAGE_BYTES, "rss"


def _sum(look: Callable[[int], int | None], pids: Iterable[int]) -> int | None:
    """None where one of them may not be looked at: a part would be taken for the whole."""
    found = [look(pid) for pid in pids]
    return None if None in found else sum(filter(None, found))


def _pss_bytes(pid: int) -> int | None:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text("ascii").splitlines()
    except ProcessLookupError:
        return 0  # it ends, and has no memory any more
    except OSError as error:
        return _nothing(error)
    return next((int(line.split()[1]) * 1_024 for line in lines if line.startswith("Pss:")), 0)


def _open_files(pid: int) -> int | None:
    try:
        return len(os.listdir(_PROC / str(pid) / "fd"))  # noqa: PTH208 - Path.iterdir costs ten times as much
    except OSError as error:
        return _nothing(error)


def _nothing(error: OSError) -> int | None:
    """What is gone has none; what may not be looked at is not known."""
    if procfs.is_shortage(error):
        raise error
    return 0 if isinstance(error, FileNotFoundError) else None
