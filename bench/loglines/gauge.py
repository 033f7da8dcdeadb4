"""What a supervisor and its helpers cost: CPU of all threads, and memory, without the program that they run.

Memory counts files in memory that are held open but not mapped, which PSS and RSS do not.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import psutil

_GONE: Final = (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError)


class Memory(NamedTuple):
    """In bytes."""

    pss: int = 0
    rss: int = 0
    memfd: int = 0

    def plus(self, other: "Memory") -> "Memory":
        return Memory(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def tree(pid: int, but: str) -> list[int]:
    """The process and all below it, without those in whose command line `but` stands, and what is below those."""
    found, left = [], [psutil.Process(pid)]
    while left:
        process = left.pop()
        with suppress(*_GONE):
            if but not in " ".join(process.cmdline()):
                found.append(process.pid)
                left += process.children()
    return found


def cpu_ns(pids: list[int]) -> int:
    """What all threads of these have run so far."""
    total = 0
    for pid in pids:
        with suppress(*_GONE):
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    return total


def memory(pids: list[int]) -> Memory:
    total = Memory()
    for pid in pids:
        with suppress(*_GONE):
            rows = dict(row.split(":", 1) for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
            pss, rss = (int(rows[name].split()[0]) * 1024 for name in ("Pss", "Rss"))
            total = total.plus(Memory(pss, rss, _memfd_bytes(pid)))
    return total


def _memfd_bytes(pid: int) -> int:
    sizes: dict[int, int] = {}
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(*_GONE):
            if fd.readlink().name.startswith("memfd:"):
                there = fd.stat()
                sizes[there.st_ino] = there.st_blocks * 512
    return sum(sizes.values())
