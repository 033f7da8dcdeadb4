"""Where a process may write: nowhere but below the folders that it is given, whoever it is.

A mount namespace and a Landlock domain are a thread's own and go over to what it starts. So a thread for a moment puts
the fence around itself and starts the process, which is one pid from the first to the last, with no program between.

Two walls. All mounts are read-only but those given (mount_setattr(2), Linux 5.12, for who may mount): that covers
change of modes and owners too, but is passed by through another process's root and by mounts that come later. Landlock
(Linux 5.13) is not, and no privilege takes it off; before its third version (6.2) it knows no truncate(2), and it never
heeds modes and owners. One that stands alone has to know truncate.

Rules: streams that the process is given may be opened again, and the devices that every program writes to, no others:
who may reach a socket, a signal or a process is as before, but that Landlock lets nobody trace who is not behind the
same fence. Device nodes are made nowhere. Not handled here: reading, and what is written through an open descriptor.
"""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct

T = TypeVar("T")

_libc: Final = ctypes.CDLL(None, use_errno=True)
# One number on every machine: all of them are younger than the common table.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWNS: Final = 0x00020000
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_MOVE_BY_FDS: Final = 0x04 | 0x40
_MOUNT_ATTR: Final = struct.Struct("=QQQQ")
_MOUNT_ATTR_RDONLY: Final = 1
_MS_SLAVE: Final = 1 << 19
_RULESET_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_RULE: Final = struct.Struct("=Qi")
_WRITE_FILE: Final = 1 << 1
_MAKE_DEVICES: Final = 1 << 6 | 1 << 11
_IN_FOLDERS: Final = sum(1 << bit for bit in (4, 5, 7, 8, 9, 10, 12))
"""Remove files and folders; make folders, files, sockets, FIFOs, symbolic links."""
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
TRUNCATE_SINCE: Final = 3
_REFER_SINCE: Final = 2
_DEVICES: Final = tuple(
    Path("/dev", name) for name in ("full", "null", "ptmx", "pts", "random", "tty", "urandom", "zero")
)


class Means(Struct, frozen=True):
    """What of the two walls can be had."""

    landlock: int
    """The version of the kernel's; 0: none."""
    mounts: bool

    @property
    def suffice(self) -> bool:
        return self.landlock >= TRUNCATE_SINCE or (self.landlock > 0 and self.mounts)

    def __str__(self) -> str:
        landlock = f"Landlock {self.landlock}" if self.landlock else "no Landlock"
        return f"{landlock}, {'mounts of its own' if self.mounts else 'no mounts of its own'}"


class Fence(Struct, frozen=True):
    writable: tuple[Path, ...]
    """By their real names."""
    means: Means


class FenceError(OSError):
    """The fence cannot be put up; `filename` says where."""


@cache
def means() -> Means:
    """What this process can put up, found out by doing it."""
    return _aside(_tried)


def unfit(path: Path) -> str:
    """Why nobody can be given this path to write below, or nothing."""
    try:
        os.close(_opened(path))
    except FenceError as error:
        return f"{path}: {error.strerror}"
    return ""


def behind(fence: Fence, streams: tuple[int, ...], start: Callable[[], T]) -> T:
    """What `start` gives when it is called behind the fence. Raises FenceError."""

    def enter() -> T:
        _enter(fence, streams)
        return start()

    return _aside(enter)


def _aside(called: Callable[[], T]) -> T:
    """Call it in a thread that is used for nothing else: what it does to itself ends with it."""
    with ThreadPoolExecutor(max_workers=1) as once:
        return once.submit(called).result()


def _tried() -> Means:
    landlock: int = max(0, _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _RULESET_VERSION))
    try:
        _leave_mounts()
        _set_mounts(_MOUNT_ATTR_RDONLY, 0)
    except FenceError:
        return Means(landlock, mounts=False)
    return Means(landlock, mounts=True)


def _enter(fence: Fence, streams: tuple[int, ...]) -> None:
    if fence.means.mounts:
        _leave_mounts()
    folders = {path: _opened(path) for path in fence.writable}
    try:
        if fence.means.mounts:
            _open_up(folders)
        _restrict(fence, [*folders.values()], streams)
    finally:
        for folder in folders.values():
            os.close(folder)


def _opened(path: Path) -> int:
    """A descriptor of what has exactly this name: nobody who may write above it leads us elsewhere."""
    try:
        opened = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(error.errno or errno.EIO, str(path)) from None
    real = os.readlink(f"/proc/self/fd/{opened}")  # noqa: PTH115 - a name of the kernel's, no path
    if real == str(path) and not stat.S_ISLNK(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    raise FenceError(errno.ELOOP, "a symbolic link leads there: give the real name of the folder", str(path))


def _leave_mounts() -> None:
    """A mount namespace of our own: it sees what is mounted later, and lets nothing out."""
    if _libc.unshare(_CLONE_NEWNS) != 0:
        raise _failed(ctypes.get_errno(), "a mount namespace")
    _set_mounts(0, _MS_SLAVE)


def _set_mounts(attributes: int, propagation: int) -> None:
    wanted = _MOUNT_ATTR.pack(attributes, 0, propagation, 0)
    size = ctypes.c_size_t(len(wanted))
    if _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, wanted, size) != 0:
        raise _failed(ctypes.get_errno(), "mounts of its own")


def _open_up(folders: dict[Path, int]) -> None:
    """All is read-only, but for these, which stay as they were."""
    trees: dict[int, tuple[Path, int]] = {}
    try:
        for path, folder in folders.items():
            flags = _OPEN_TREE_CLONE | _AT_EMPTY_PATH | _AT_RECURSIVE | os.O_CLOEXEC
            tree: int = _libc.syscall(_OPEN_TREE, folder, b"", flags)
            if tree < 0:
                raise _failed(ctypes.get_errno(), str(path))
            trees[tree] = path, folder
        _set_mounts(_MOUNT_ATTR_RDONLY, 0)
        for tree, (path, folder) in trees.items():
            if _libc.syscall(_MOVE_MOUNT, tree, b"", folder, b"", _MOVE_BY_FDS) != 0:
                raise _failed(ctypes.get_errno(), str(path))
    finally:
        for tree in trees:
            os.close(tree)


def _restrict(fence: Fence, folders: list[int], streams: tuple[int, ...]) -> None:
    on_files = _WRITE_FILE | (_TRUNCATE if fence.means.landlock >= TRUNCATE_SINCE else 0)
    in_folders = _IN_FOLDERS | (_REFER if fence.means.landlock >= _REFER_SINCE else 0)
    handled = struct.pack("=Q", on_files | in_folders | _MAKE_DEVICES)
    rules: int = _libc.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0)
    if rules < 0:
        raise _failed(ctypes.get_errno(), "Landlock")
    try:
        for folder in folders:
            _allow(rules, folder, on_files, in_folders)
        for stream in streams:
            _allow(rules, stream, on_files, 0)
        for path in filter(Path.exists, _DEVICES):
            device = os.open(path, os.O_PATH | os.O_CLOEXEC)
            _allow(rules, device, on_files, 0)
            os.close(device)
        # Of this thread alone, and of what it starts.
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or _libc.syscall(_RESTRICT_SELF, rules, 0) != 0:
            raise _failed(ctypes.get_errno(), "Landlock")
    finally:
        os.close(rules)


def _allow(rules: int, opened: int, on_files: int, in_folders: int) -> None:
    is_folder = stat.S_ISDIR(os.fstat(opened).st_mode)
    rule = _RULE.pack(on_files | (in_folders if is_folder else 0), opened)
    # What is in no folder at all, as a pipe without a name, is open to everybody who has it.
    if _libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0) != 0 and ctypes.get_errno() != errno.EBADFD:
        raise _failed(ctypes.get_errno(), os.readlink(f"/proc/self/fd/{opened}"))  # noqa: PTH115 - as above


def _failed(number: int, what: str) -> FenceError:
    return FenceError(number, os.strerror(number), what)
