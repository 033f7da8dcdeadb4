"""What the system refuses to this very process, for a while."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_more_fds() -> Iterator[None]:
    """Every open file stays, and no other can be opened: whoever asks the kernel something new hears EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
