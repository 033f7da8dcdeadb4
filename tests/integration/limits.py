"""What the system refuses to this very process, for a while."""

import ctypes
import os
import resource
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from agent.linux import fence

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
# seccomp(2): load the number of the call; where it is landlock_create_ruleset, ENOSYS; else go on.
_NO_LANDLOCK = (0x20, 0, 0, 0, 0x15, 0, 1, 444, 0x06, 0, 0, 0x0005_0000 | 38, 0x06, 0, 0, 0x7FFF_0000)


@contextmanager
def no_more_fds(above: int = 0) -> Iterator[None]:
    """Every open file stays, and no other can be opened: whoever asks the kernel something new hears EMFILE.

    Numbers below `above` can be had still.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (above, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def few_fds(count: int) -> Iterator[None]:
    """So many files can be opened, and none beside them."""
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    for fd in free:
        os.close(fd)
    with no_more_fds(above=max(free) + 1):
        yield


def without_landlock(called: Callable[[], T]) -> T:
    """What it gives on a kernel without Landlock: in a thread to which the kernel says that it has no such call."""

    def refused() -> T:
        filters = ctypes.create_string_buffer(struct.pack("=" + "HBBI" * 4, *_NO_LANDLOCK))
        program = struct.pack("@HP", 4, ctypes.addressof(filters))
        assert _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        assert _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) == 0
        return called()

    fence.means.cache_clear()
    try:
        with ThreadPoolExecutor(max_workers=1) as once:
            return once.submit(refused).result()
    finally:
        fence.means.cache_clear()
