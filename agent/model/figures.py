"""What an instance uses of its host, as somebody who asked is told."""

from typing import Literal

from msgspec import Struct

from agent.model.ids import AppName, EnvironmentName, ProcessName
from agent.model.units import Bytes, Milliseconds

MemoryKind = Literal["cgroup", "pss", "rss"]


class Figures(Struct, frozen=True, kw_only=True):
    """Of the whole tree of an instance, at one moment. None: this host cannot tell."""

    cpu_ms: Milliseconds
    """Processor time since its start; without cgroup v2 that of what lives, and of children that were waited for."""
    cpu_percent: float | None = None
    """Of one processor, since somebody looked before, or since its start."""
    memory_bytes: Bytes | None = None
    memory_kind: MemoryKind | None = None
    """What counts: all of its cgroup, caches of files too; the share of each page (PSS); or, where that may not be
    read, each page as often as it is mapped (RSS)."""
    threads: int = 0
    open_files: int | None = None


class InstanceFigures(Struct, frozen=True, kw_only=True):
    app: AppName
    environment: EnvironmentName
    process: ProcessName
    slot: int
    figures: Figures
