"""The guard of a singleton: a small program of its own that ends it when its lease runs out, whoever else is dead.

    python3 -I -S -E guard.py LEASE MARK [CGROUP]

Rules: it is neither the agent's nor the instance's: stopping, killing or cutting off either does not stop it. It knows
nothing but the file LEASE, which an agent replaces whole with each answer of a coordinator, and CLOCK_BOOTTIME, which
counts while the machine sleeps. The stop signal goes out as long before the lease's end as the grace is, SIGKILL at the
end, again and again while anything is found: whatever is started later without a lease dies too. A lease of another
boot, or one that cannot be read, is none that is longer than the last that was read. When LEASE is gone, or has
been over for a while, and nothing lives any more, the guard ends.

Whom it ends: every process in the cgroups `CGROUP.*`; without cgroups every process that has an entry in its
environment beginning with MARK, its session, and what descends from those. A guard outlives upgrades: what LEASE says
must be understood by older ones. It imports the standard library's smallest
part alone, and nothing of Rollway: it stays in memory for as long as the instance lives.
"""

import os
import signal
import sys
import time

PAUSE_S = 0.25
"""Between two looks at the clock: so late a lease may be found to have run out, after the machine has slept too."""
AGAIN_S = 0.02
LINGER_MS = 5_000
"""So long after the end of a lease it waits for another while nothing lives."""


class Lease:
    """Until when, and how to end it: milliseconds of this boot's CLOCK_BOOTTIME."""

    def __init__(self, until_ms: int, grace_ms: int, number: int) -> None:
        self.until_ms, self.grace_ms, self.number = until_ms, grace_ms, number


def boottime_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def written(boot_id: str, lease: Lease) -> bytes:
    """A lease as its file says it."""
    return f"{boot_id} {lease.until_ms} {lease.grace_ms} {lease.number}\n".encode("ascii")


def parsed(data: bytes, boot_id: str) -> Lease | None:
    """The lease that a file says; None for one of another boot, and for anything else."""
    words = data.split()
    if len(words) != 4 or words[0] != boot_id.encode("ascii") or not all(word.isdigit() for word in words[1:]):  # noqa: PLR2004
        return None
    return Lease(int(words[1]), int(words[2]), int(words[3]))


class Guard:
    def __init__(self, path: str, mark: str, cgroup: str) -> None:
        self._path, self._mark = path, mark.encode()
        self._name = path.rpartition("/")[2]
        self._folder, _, self._prefix = cgroup.rpartition("/")
        self._boot_id = _read("/proc/sys/kernel/random/boot_id").decode("ascii").strip()
        self._lease = Lease(boottime_ms(), 0, signal.SIGTERM)
        self._told: tuple[int, int] | None = None

    def run(self) -> None:
        while self._is_needed():
            try:
                pause_s = self._look()
            except OSError:  # no descriptor, no memory: it is looked again
                pause_s = AGAIN_S
            time.sleep(pause_s)

    def _is_needed(self) -> bool:
        """Read the lease again; without any, or long after its end, there must be nothing more to guard."""
        is_there = True
        try:
            self._lease = parsed(_read(self._path), self._boot_id) or self._lease
        except FileNotFoundError:
            is_there = False
        except OSError:
            pass  # the last one that was read counts on
        if is_there and boottime_ms() < self._lease.until_ms + LINGER_MS:
            return True
        try:
            return bool(self._members())
        except OSError:
            return True

    def _look(self) -> float:
        """Do what is due, and say how long there is time now."""
        lease, now_ms = self._lease, boottime_ms()
        left_ms = lease.until_ms - now_ms
        if left_ms <= 0:
            return AGAIN_S if self._kill_all(f"its lease ran out {-left_ms} ms ago") else PAUSE_S
        if left_ms > lease.grace_ms:
            return min(PAUSE_S, (left_ms - lease.grace_ms) / 1000)
        if self._told != (lease.until_ms, lease.number):
            members = self._members()
            for pid, started in members:
                _send(pid, started, lease.number)
            self._tell(lease.number, f"its lease runs out in {left_ms} ms", found=bool(members))
        return min(PAUSE_S, left_ms / 1000)

    def _kill_all(self, why: str) -> bool:
        """Whether there was anybody."""
        if self._folder:
            leaves = [leaf for leaf in self._leaves() if _pids(leaf)]
            for leaf in leaves:
                _kill(leaf)
            found = bool(leaves)
        else:
            members = self._members()
            for pid, started in members:
                _send(pid, started, signal.SIGKILL)
            found = bool(members)
        self._tell(signal.SIGKILL, why, found=found)
        return found

    def _tell(self, number: int, why: str, *, found: bool) -> None:
        """Once each, on standard error; where the agent's output is gone nobody hears it."""
        if found and self._told != (self._lease.until_ms, number):
            try:  # noqa: SIM105 - contextlib is large
                os.write(2, f"rollway guard: {self._name} is sent signal {number}: {why}\n".encode())
            except OSError:
                pass
        self._told = (self._lease.until_ms, number)

    def _leaves(self) -> list[str]:
        """The cgroups of the instances, and those below them."""
        try:
            names = [name for name in os.listdir(self._folder) if name.startswith(self._prefix)]  # noqa: PTH208 - pathlib is large
        except FileNotFoundError:
            return []
        return [folder for name in names for folder, _, _ in os.walk(f"{self._folder}/{name}")]

    def _members(self) -> list[tuple[int, int]]:
        """Whom there is to end: number and start time."""
        if self._folder:
            pids = {pid for leaf in self._leaves() for pid in _pids(leaf)}
            return [(pid, stat[2]) for pid in pids if (stat := _stat(pid)) is not None]
        numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - as above
        found = {pid: stat for pid in numbers if (stat := _stat(pid)) is not None}
        mine = {os.getpid(), os.getppid()}
        members = {pid for pid in found if self._is_marked(pid)} - mine
        sessions = {found[pid][1] for pid in members if found[pid][1] in members}
        members |= {pid for pid, (_, session, _) in found.items() if session in sessions} - mine
        while grown := {pid for pid, (parent, _, _) in found.items() if parent in members} - members - mine:
            members |= grown
        return [(pid, found[pid][2]) for pid in members]

    def _is_marked(self, pid: int) -> bool:
        try:
            environ = _read(f"/proc/{pid}/environ")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False
        return any(entry.startswith(self._mark) for entry in environ.split(b"\0"))


def _stat(pid: int) -> tuple[int, int, int] | None:
    """Parent, session and start time of a process that lives."""
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else (int(fields[1]), int(fields[3]), int(fields[19]))


def _pids(leaf: str) -> list[int]:
    try:
        return [int(word) for word in _read(f"{leaf}/cgroup.procs").split()]
    except OSError:
        return []  # the leaf was removed


def _kill(leaf: str) -> None:
    try:
        descriptor = os.open(f"{leaf}/cgroup.kill", os.O_WRONLY)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, b"1")
    finally:
        os.close(descriptor)


def _send(pid: int, started: int, number: int) -> None:
    """To the process that was found, and to none that has its number now."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        stat = _stat(pid)
        if stat is not None and stat[2] == started:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while part := os.read(descriptor, 65_536):
            data += part
        return data
    finally:
        os.close(descriptor)


def main(words: list[str]) -> None:
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123 - pathlib is large
            score.write("-1000")
    except OSError:
        pass  # not root: the kernel may choose it like any other
    path, mark, *cgroup = words
    Guard(path, mark, cgroup[0] if cgroup else "").run()


if __name__ == "__main__":
    main(sys.argv[1:])
