"""Log pipes that outlive the agent: FIFOs that an instance holds open both ways, so that none ever breaks.

Rules: agent and instance each open the path: a shared description would share O_NONBLOCK, which node sets. While the
instance lives, the end of the data is never seen; its exit is the pidfd. What is in a pipe when its last holder closes
is gone: the agent's end belongs in the FD store. Failures are OSErrors.
"""

import fcntl
import os
import stat
import sys
import termios
from pathlib import Path
from typing import Final

PIPE_BYTES: Final = 256 * 1024


def make(path: str | Path) -> None:
    """Make a FIFO of mode 0600, so that the instance whose own it is can open /dev/stdout again."""
    os.mkfifo(path, 0o600)


def open_reader(path: str | Path) -> int:
    """Open the agent's end: never blocks, neither here nor in a read."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def open_again(fd: int) -> int:
    """Open the agent's end of a FIFO that is held already, whether or not its path is still there."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def open_for_child(path: str | Path) -> int:
    """Open the instance's end: blocks in a write while the pipe is full, and never sees it broken."""
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def waiting(fd: int) -> int:
    """How many bytes wait to be read."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def name_of(fd: int) -> str:
    """The last part of the path by which it was opened, whether or not that is still there."""
    return Path(f"/proc/self/fd/{fd}").readlink().name.removesuffix(" (deleted)")


def is_fifo(fd: int) -> bool:
    """Whether the descriptor is of a FIFO at all."""
    return stat.S_ISFIFO(os.fstat(fd).st_mode)


def enlarge(fd: int, size_bytes: int = PIPE_BYTES) -> int:
    """Ask for a larger pipe and give the size it has now: less where the kernel refuses."""
    try:
        return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size_bytes)
    except OSError:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
