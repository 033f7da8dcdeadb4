"""Cgroup v2, where this process may use it: one leaf per instance, ended as a whole and measured as a whole.

Rules: only folders below the one found by `detect` are touched; a leaf holds processes, the folders above it hold
none. `remove` waits for nothing: a leaf that is not empty stays (False). Other failures are OSErrors.

An agent that is `rollway-agent.service` has its instances in the cgroup of `rollway-apps.service` (`of_apps`), which is
delegated to it: below its own, controllers that are on for them would keep systemd from starting it again.
"""

import errno
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from agent.linux.clock import SAME_MOMENT_S

AGENT_UNIT: Final = "rollway-agent.service"
APPS_UNIT: Final = "rollway-apps.service"
HOLDER: Final = "holder"
"""The leaf of the process that holds the unit of the apps up. No instance has this name: theirs have dots."""
CONTROLLERS: Final = ("cpu", "io", "memory", "pids")
_MOUNTS: Final = Path("/proc/self/mountinfo")
_PAGE_BYTES: Final = 1 << 16


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


def of_apps(agent: int | None = None) -> Path | None:
    """Give the folder, there or not, of `rollway-apps.service` beside the `rollway-agent.service` of a process.

    Without `agent` this process is meant. None: it is not of that unit.
    """
    mount, own = _mounted_at(), PurePosixPath(_own_path("self" if agent is None else agent))
    if mount is None or own.name != AGENT_UNIT:
        return None
    return mount / own.relative_to("/").with_name(APPS_UNIT)


def is_started(unit: Path) -> bool:
    """Whether the unit of the apps is held up, as anybody may see it."""
    return bool(pids(unit / HOLDER) or pids(unit))


def take_over(unit: Path) -> bool:
    """Make a delegated unit's folder ready for leaves: its process in one of its own, the controllers switched on.

    False while the unit does not run. May be done again; a controller that the host does not have stays off.
    """
    holder = unit / HOLDER
    try:
        holder.mkdir(exist_ok=True)
        for pid in filter(None, pids(unit)):  # 0 would be ourselves: it stands for one that is seen from elsewhere only
            _move(pid, holder)
        if not pids(holder):
            return False
        has = set(_read(unit / "cgroup.controllers").split()) - set(switched_on(unit))
        for controller in CONTROLLERS:
            if controller in has:
                write(unit, "cgroup.subtree_control", f"+{controller}")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EBUSY):
            return False  # not started, just gone, or a process came in between
        raise
    return True


class Room:
    """Whether a delegated unit has room for leaves, asked before each start: taken over once, then only looked at.

    One look is for all that start in the same moment. A unit that was started anew has another folder: it is taken over
    again.
    """

    def __init__(self, unit: Path | None) -> None:
        """Without a unit there always is."""
        self._unit: Final = unit
        self._taken: int | None = None
        self._seen_s = -math.inf

    def __call__(self) -> bool:
        now_s = time.monotonic()
        if self._unit is None or (self._taken is not None and now_s - self._seen_s < SAME_MOMENT_S):
            return True
        self._seen_s = now_s
        if self._taken is None or self._inode() != self._taken or not pids(self._unit / HOLDER):
            self._taken = self._inode() if take_over(self._unit) else None
        return self._taken is not None

    def _inode(self) -> int | None:
        try:
            return os.stat(f"{self._unit}").st_ino  # noqa: PTH116 - asked before each start
        except OSError:
            return None


def switched_on(folder: Path) -> tuple[str, ...]:
    """Which controllers are on for the leaves of a folder."""
    return tuple(_read(folder / "cgroup.subtree_control").split())


def controllers() -> frozenset[str] | None:
    """The controllers that this machine's cgroup v2 has; None where there is none."""
    mount = _mounted_at()
    return None if mount is None else frozenset(_read(mount / "cgroup.controllers").split())


def create(root: Path, name: str) -> Path:
    """Make the leaf `name`, which may be there already."""
    leaf = root / name
    leaf.mkdir(parents=True, exist_ok=True)
    return leaf


def renew(leaf: Path | str) -> bool:
    """Make it with nothing set and nothing counted; False where something lives in it: then it stays as it is."""
    try:
        os.mkdir(leaf)  # noqa: PTH102 - at each start
    except FileNotFoundError:
        Path(leaf).mkdir(parents=True)
    except FileExistsError:
        return remove(leaf) and renew(leaf)
    return True


@contextmanager
def trial(root: Path) -> Iterator[Path]:
    """A leaf for a moment, to find out what can be set in leaves of `root`."""
    leaf = Path(tempfile.mkdtemp(prefix="trial-", dir=root))
    try:
        yield leaf
    finally:
        leaf.rmdir()


def write(folder: Path | str, key: str, value: str) -> None:
    """Set a limit such as `memory.max`, or switch a controller on: OSError where the host cannot."""
    fd = os.open(f"{folder}/{key}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("ascii"))
    finally:
        os.close(fd)


def pids(leaf: Path | str) -> list[int]:
    """The processes directly in a leaf; none where it is gone."""
    return [int(word) for word in _read(f"{leaf}/cgroup.procs").split()]


def is_empty(leaf: Path | str) -> bool:
    """Whether no process lives in the leaf or below it."""
    return "populated 1" not in _read(f"{leaf}/cgroup.events")


def oom_kills(leaf: Path | str) -> int:
    """How many processes of the leaf the kernel has killed for want of memory."""
    pairs = (line.split() for line in _read(f"{leaf}/memory.events").splitlines())
    return next((int(value) for key, value in pairs if key == "oom_kill"), 0)


def cpu_ms(leaf: Path | str) -> int | None:
    """The processor time of all that ever ran in the leaf; None where it is gone."""
    pairs = (line.split() for line in _read(f"{leaf}/cpu.stat").splitlines())
    return next((int(value) // 1_000 for key, value in pairs if key == "usage_usec"), None)


def number(leaf: Path | str, key: str) -> int | None:
    """A file of one number, such as `memory.current`; None where its controller is not on, or the leaf is gone."""
    text = _read(f"{leaf}/{key}").strip()
    return int(text) if text.isdigit() else None


def kill(leaf: Path | str) -> None:
    """Send SIGKILL to everything in the leaf and below it, at once."""
    try:
        write(leaf, "cgroup.kill", "1")
    except FileNotFoundError:
        return  # nothing is left of it


def leaves(folder: Path, prefix: str) -> list[Path]:
    """The leaves below a folder whose paths in it begin so; none where it is gone."""
    return sorted(folder.glob(f"{prefix}*/"))


def remove(leaf: Path | str) -> bool:
    """Remove an empty leaf; False where something still lives in it."""
    try:
        os.rmdir(leaf)  # noqa: PTH106 - at each start
    except FileNotFoundError:
        return True
    except OSError:
        return _remove_from_below(Path(leaf))
    return True


def _remove_from_below(leaf: Path) -> bool:
    """As there may be leaves below it."""
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


def _move(pid: int, leaf: Path) -> None:
    try:
        write(leaf, "cgroup.procs", str(pid))
    except OSError as error:
        if error.errno != errno.ESRCH:  # it ended
            raise


def _mounted_at() -> Path | None:
    for line in _MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


def _own_path(process: int | str = "self") -> str:
    lines = _read(Path(f"/proc/{process}/cgroup")).splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "/")


def _read(path: Path | str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = b""
            while chunk := os.read(fd, _PAGE_BYTES):
                data += chunk
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return ""
        raise
    return data.decode("ascii")
