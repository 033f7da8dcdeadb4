"""What the system refuses to this very process, for a while."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


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
