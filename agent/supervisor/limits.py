"""The limits of an instance in the kernel's words, files of its cgroup v2 leaf and an rlimit; which cannot be kept.

Rules (cgroup-v2.rst, setrlimit(2)): in a leaf that was made anew what is so by itself is left so; in one that is used
again, perhaps by a process with other limits, each file is written. Whether a host can keep a limit is found out by
setting it. An instance that runs out of memory ends as a whole, and does not go to swap before. Nothing here waits.
"""

import contextlib
import resource
from functools import lru_cache
from pathlib import Path
from typing import Final

from msgspec import Struct

from agent.linux import cgroup
from agent.linux.spawn import Rlimits, open_files_max
from agent.model.process import Limits

PERIOD_US: Final = 100_000
_AS_MADE: Final = {
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.oom.group": "0",
    "memory.high": "max",
    "cpu.max": f"max {PERIOD_US}",
    "pids.max": "max",
    "io.weight": "100",
}
"""What a leaf has as the kernel makes it."""
_CANNOT_KEEP: Final = (
    "this host cannot keep limits.{}: that takes cgroup v2 with the controller, or CAP_SYS_RESOURCE for open_files "
    '(enforce = "best-effort" does without)'
)


class _Bound(Struct, frozen=True):
    key: str
    """As the app's file has it."""
    file: str
    value: str
    is_asked: bool


def put(leaf: Path | str | None, limits: Limits, *, is_new: bool = False) -> tuple[str, ...]:
    """Set what can be set for the processes of a leaf; gives, by their keys, the limits that cannot be kept there."""
    known = _AS_MADE if is_new else {}
    bounds = [bound for bound in _bounds(limits) if bound.is_asked or bound.value != known.get(bound.file)]
    unkept = [bound.key for bound in bounds if not _is_put(leaf, bound) and bound.is_asked]
    if limits.open_files is not None and limits.open_files > open_files_max():
        unkept.append("open_files")
    return tuple(unkept)


def refusal(unkept: tuple[str, ...], limits: Limits) -> str:
    """Why nothing is started with limits of which some cannot be kept; nothing where the app can do without."""
    return _CANNOT_KEEP.format(", ".join(unkept)) if unkept and not limits.best_effort else ""


def rlimits(limits: Limits, default: Rlimits) -> Rlimits:
    if limits.open_files is None or limits.open_files > open_files_max():
        return default
    return {**default, resource.RLIMIT_NOFILE: (limits.open_files, limits.open_files)}


@lru_cache(maxsize=256)
def _bounds(limits: Limits) -> tuple[_Bound, ...]:
    memory, high, cpu = limits.memory_bytes, limits.memory_high_bytes, limits.cpu_milli
    quota = "max" if cpu is None else str(cpu * PERIOD_US // 1_000)
    return (
        _Bound("memory", "memory.max", _or_max(memory), memory is not None),
        _Bound("memory", "memory.swap.max", "max" if memory is None else "0", is_asked=False),
        _Bound("memory", "memory.oom.group", "1", is_asked=False),
        _Bound("memory_high", "memory.high", _or_max(high), high is not None),
        _Bound("cpu", "cpu.max", f"{quota} {PERIOD_US}", cpu is not None),
        _Bound("tasks", "pids.max", _or_max(limits.tasks), limits.tasks is not None),
        _Bound("io_weight", "io.weight", str(limits.io_weight or 100), limits.io_weight is not None),
    )


def _is_put(leaf: Path | str | None, bound: _Bound) -> bool:
    with contextlib.suppress(OSError):
        if leaf is not None:
            cgroup.write(leaf, bound.file, bound.value)
            return True
    return False


def _or_max(bound: int | None) -> str:
    return "max" if bound is None else str(bound)
