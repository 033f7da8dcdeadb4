"""Files in memory that outlive whoever wrote them, for as long as somebody (the FD store) holds their descriptor.

Rules: what is written through a `Mapping` is there for a next process from the store on that wrote it, in the order of
the stores: a SIGKILL comes between two of them. A file's position belongs to the open file, not to a process: splice(2)
moves it in the same call as the bytes. A file that is mapped is of one size for ever: nobody can cut it off below us.
"""

import ctypes
import fcntl
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PAGE_BYTES: Final = mmap.PAGESIZE
_PROT_NONE, _MAP_FIXED = 0, 0x10
_FAILED: Final = ctypes.c_void_p(-1).value
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Mapping:
    """`size` bytes of a file from `offset` on, both multiples of a page, mapped `times` in a row.

    `bytes` must not be used any more after `close`, nor any part of it.
    """

    def __init__(self, fd: int, offset: int, size: int, times: int = 1) -> None:
        self._length: Final = size * times
        self._address: Final = _mapped(None, self._length, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        try:
            for place in range(self._address, self._address + self._length, size):
                _mapped(place, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED, fd, offset)
        except OSError:
            _libc.munmap(self._address, self._length)
            raise
        self.bytes: Final = memoryview((ctypes.c_ubyte * self._length).from_address(self._address)).cast("B")

    def close(self) -> None:
        self.bytes.release()
        _libc.munmap(self._address, self._length)


def create(name: str, size: int = 0) -> int:
    """Make one, empty or of this size for ever; `name` is for people who look into /proc/PID/fd."""
    fd = os.memfd_create(name[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if size:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


@contextmanager
def creating(name: str, size: int) -> Iterator[int]:
    """Make one that is closed again where what is to be done with it fails."""
    fd = create(name, size)
    try:
        yield fd
    except OSError:
        os.close(fd)
        raise


def size_for_ever(fd: int) -> int:
    """The size of a file that cannot change, 0 of any other."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return 0
    return os.fstat(fd).st_size if seals & fcntl.F_SEAL_SHRINK else 0


def is_file(fd: int) -> bool:
    """Whether the descriptor is of a file at all."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def position(fd: int) -> int:
    return os.lseek(fd, 0, os.SEEK_CUR)


def set_position(fd: int, offset: int) -> None:
    os.lseek(fd, offset, os.SEEK_SET)


def whole_pages(count: int) -> int:
    """`count`, rounded up."""
    return -(-count // PAGE_BYTES) * PAGE_BYTES


def take(fd: int, source: int, count: int) -> int:
    """Move what waits in the pipe `source` to the position of `fd`; BlockingIOError where nothing does."""
    return os.splice(source, fd, count, flags=os.SPLICE_F_NONBLOCK)


def _mapped(*how: int | None) -> int:
    """What mmap(2) gives for its six arguments."""
    address: int | None = _libc.mmap(*how)
    if address is None or address == _FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return address
