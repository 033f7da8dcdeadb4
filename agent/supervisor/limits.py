"""The limits of an instance in the kernel's words, files of its cgroup v2 leaf and an rlimit; which cannot be kept.

Rules (cgroup-v2.rst, setrlimit(2)): each file that the host has is written at every start, for a leaf may be used again
by a process with other limits. An instance that runs out of memory ends as a whole. Nothing here waits.
"""

import os
import resource
from pathlib import Path
from typing import Final

from msgspec import Struct

from agent.linux import cgroup
from agent.linux.spawn import Rlimits
from agent.model.process import Limits

PERIOD_US: Final = 100_000


class _Bound(Struct, frozen=True):
    key: str
    """As the app's file has it."""
    file: str
    value: str
    is_asked: bool

    @property
    def controller(self) -> str:
        return self.file.partition(".")[0]


def unkept(root: Path | None, limits: Limits) -> tuple[str, ...]:
    """Which of the limits, by their keys, cannot be kept for leaves of `root`."""
    there = frozenset(cgroup.switched_on(root)) if root is not None else frozenset[str]()
    lacking = [bound.key for bound in _bounds(limits) if bound.is_asked and bound.controller not in there]
    if limits.open_files is not None and not _may_have(limits.open_files):
        lacking.append("open_files")
    return tuple(lacking)


def put(leaf: Path, limits: Limits) -> None:
    """Set what can be set. Raises OSError."""
    for bound in _bounds(limits):
        if (leaf / bound.file).exists():
            cgroup.write(leaf, bound.file, bound.value)


def rlimits(limits: Limits, default: Rlimits) -> Rlimits:
    if limits.open_files is None or not _may_have(limits.open_files):
        return default
    return {**default, resource.RLIMIT_NOFILE: (limits.open_files, limits.open_files)}


def _bounds(limits: Limits) -> tuple[_Bound, ...]:
    cpu = limits.cpu_milli
    quota = "max" if cpu is None else str(cpu * PERIOD_US // 1_000)
    return (
        _Bound("memory", "memory.max", _or_max(limits.memory_bytes), limits.memory_bytes is not None),
        _Bound("memory", "memory.oom.group", "1", is_asked=False),
        _Bound("memory_high", "memory.high", _or_max(limits.memory_high_bytes), limits.memory_high_bytes is not None),
        _Bound("cpu", "cpu.max", f"{quota} {PERIOD_US}", cpu is not None),
        _Bound("tasks", "pids.max", _or_max(limits.tasks), limits.tasks is not None),
        _Bound("io_weight", "io.weight", str(limits.io_weight or 100), limits.io_weight is not None),
    )


def _or_max(bound: int | None) -> str:
    return "max" if bound is None else str(bound)


def _may_have(open_files: int) -> bool:
    return os.geteuid() == 0 or open_files <= resource.getrlimit(resource.RLIMIT_NOFILE)[1]
