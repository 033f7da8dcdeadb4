"""What a supervisor and its helpers cost: CPU of all threads, and memory, without the program that they run.

Memory counts files in memory, of which PSS and RSS know only what is mapped: as files, once, whether mapped or not.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import psutil

_CPUCLOCK_SCHED: Final = 2
"""Of a process by its number, as clock_getcpuclockid(3) gives it: in nanoseconds, whatever the tick."""
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
    below: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter(["ppid"]):
        below.setdefault(process.info["ppid"], []).append(process)
    found, left = [], [psutil.Process(pid)]
    while left:
        process = left.pop()
        with suppress(*_GONE):
            if but not in " ".join(process.cmdline()):
                found.append(process.pid)
                left += below.get(process.pid, ())
    return found


def cpu_ns(pids: list[int]) -> int:
    """What all threads of these have run so far, those that have ended too."""
    total = 0
    for pid in pids:
        with suppress(OSError):  # gone
            total += time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED)
    return total


def memory(pids: list[int]) -> Memory:
    total = Memory()
    for pid in pids:
        with suppress(*_GONE):
            rows = dict(row.split(":", 1) for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
            pss, files, rss = (int(rows[name].split()[0]) * 1024 for name in ("Pss", "Pss_Shmem", "Rss"))
            total = total.plus(Memory(pss - files, rss, _memfd_bytes(pid)))
    return total


def memory_alone(pids: list[int]) -> int:
    """PSS and files in memory, as if whoever measures did not run: what it has mapped as well is wholly theirs."""
    ours = _mapped(os.getpid()).keys() - {""}
    total, whole = 0, dict[str, int]()
    for pid in pids:
        with suppress(*_GONE):
            for path, (rss, pss, anonymous) in _mapped(pid).items():
                if path.startswith("/memfd:"):
                    continue
                if path in ours:  # its pages are the same ones in all of them, but for those that were written to
                    total += anonymous
                    whole[path] = max(whole.get(path, 0), rss - anonymous)
                else:
                    total += pss
            total += _memfd_bytes(pid)
    return total + sum(whole.values())


def _mapped(pid: int) -> dict[str, list[int]]:
    """Of each file, and of what is no file's (""): resident bytes, their proportional share, and anonymous ones."""
    found: dict[str, list[int]] = {}
    sizes, places = [0, 0, 0], {"Rss:": 0, "Pss:": 1, "Anonymous:": 2}
    for row in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *words = row.split()
        if first in places:
            sizes[places[first]] += int(words[0]) * 1024
        elif not first.endswith(":"):
            sizes = found.setdefault(words[4] if words[4:] and words[4].startswith("/") else "", [0, 0, 0])
    return found


def _memfd_bytes(pid: int) -> int:
    sizes: dict[int, int] = {}
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(*_GONE):
            if fd.readlink().name.startswith("memfd:"):
                there = fd.stat()
                sizes[there.st_ino] = there.st_blocks * 512
    return sum(sizes.values())
