"""Cgroup v2, where this process may use it: one leaf per instance, ended as a whole and measured as a whole.

Rules: only folders below the one found by `detect` are touched; a leaf holds processes, the folders above it hold
none. `remove` waits for nothing: a leaf that is not empty stays (False). Other failures are OSErrors.
"""

import errno
import os
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")


def detect() -> Path | None:
    """Give this process's own cgroup v2 folder, if leaves can be made in it and killed as a whole (Linux 5.14)."""
    mount = _mounted_at()
    if mount is None:
        return None
    own = mount / _own_path().lstrip("/")
    probe = own / f"rollway-probe-{os.getpid()}"
    try:
        probe.mkdir()
    except OSError:
        return None
    usable = (probe / "cgroup.kill").exists() and os.access(own / "cgroup.procs", os.W_OK)
    probe.rmdir()
    return own if usable else None


def controllers() -> frozenset[str] | None:
    """The controllers that this machine's cgroup v2 has; None where there is none."""
    mount = _mounted_at()
    return None if mount is None else frozenset(_read(mount / "cgroup.controllers").split())


def create(root: Path, name: str) -> Path:
    """Make the leaf `name`, which may be there already."""
    leaf = root / name
    leaf.mkdir(parents=True, exist_ok=True)
    return leaf


def write(folder: Path, key: str, value: str) -> None:
    """Set a limit such as `memory.max`, or switch a controller on: OSError where the host cannot."""
    (folder / key).write_text(value, "ascii")


def pids(leaf: Path) -> list[int]:
    """The processes directly in a leaf; none where it is gone."""
    return [int(word) for word in _read(leaf / "cgroup.procs").split()]


def is_empty(leaf: Path) -> bool:
    """Whether no process lives in the leaf or below it."""
    return "populated 1" not in _read(leaf / "cgroup.events")


def oom_kills(leaf: Path) -> int:
    """How many processes of the leaf the kernel has killed for want of memory."""
    pairs = (line.split() for line in _read(leaf / "memory.events").splitlines())
    return next((int(value) for key, value in pairs if key == "oom_kill"), 0)


def kill(leaf: Path) -> None:
    """Send SIGKILL to everything in the leaf and below it, at once."""
    try:
        write(leaf, "cgroup.kill", "1")
    except FileNotFoundError:
        return  # nothing is left of it


def remove(leaf: Path) -> bool:
    """Remove an empty leaf; False where something still lives in it."""
    try:
        for folder, _, _ in os.walk(leaf, topdown=False):
            Path(folder).rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _mounted_at() -> Path | None:
    for line in _MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


def _own_path() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "/")


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return ""
        raise
