"""Files in memory that outlive whoever wrote them, for as long as somebody (the FD store) holds their descriptor.

Rules: a file only grows; its offsets never come back, what is not needed any more is given back to the system as a
hole. The position belongs to the open file, not to a process: splice(2) and sendfile(2) move it in the same call as
the bytes, so that a SIGKILL between any two calls leaves bytes and position in step.
"""

import mmap
import os
import stat
from typing import Final

PAGE_BYTES: Final = mmap.PAGESIZE


def create(name: str) -> int:
    """Make an empty one; `name` is for people who look into /proc/PID/fd."""
    return os.memfd_create(name[:200], os.MFD_CLOEXEC)


def is_file(fd: int) -> bool:
    """Whether the descriptor is of a file at all."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def position(fd: int) -> int:
    return os.lseek(fd, 0, os.SEEK_CUR)


def set_position(fd: int, offset: int) -> None:
    os.lseek(fd, offset, os.SEEK_SET)


def page_floor(offset: int) -> int:
    return offset - offset % PAGE_BYTES


def forget(fd: int, start: int, end: int) -> None:
    """Give the pages from `start` to `end` (both multiples of a page) back: a hole is left, which reads as zeros."""
    if start < end:
        with mmap.mmap(fd, end - start, offset=start) as window:
            window.madvise(mmap.MADV_REMOVE)


def take(fd: int, source: int, count: int) -> int:
    """Move what waits in the pipe `source` to the position of `fd`; BlockingIOError where nothing does."""
    return os.splice(source, fd, count, flags=os.SPLICE_F_NONBLOCK)
