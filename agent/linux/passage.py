"""The pipe through which journals are sent: whatever a SIGKILL cuts off is in it, and a next process sends the rest.

Rules: one journal at a time has bytes in it (`journal` keeps whose turn it is); it is filled only when it is empty; one
process uses it. The descriptor, both ends in one, goes into the FD store. Failures are OSErrors.
"""

import os
from typing import Final

from agent.linux import fifo

PASSAGE_BYTES: Final = 1 << 20
_BOTH_ENDS: Final = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC


class Passage:
    """Made by `create` or `adopt`."""

    def __init__(self, fd: int) -> None:
        self.fd: Final = fd
        fifo.enlarge(fd, PASSAGE_BYTES)
        self.level = fifo.waiting(fd)
        """How many bytes are in it."""

    @classmethod
    def create(cls) -> "Passage":
        reading, writing = os.pipe()
        try:
            return cls(os.open(f"/proc/self/fd/{reading}", _BOTH_ENDS))
        finally:
            os.close(reading)
            os.close(writing)

    def put(self, data: memoryview) -> int:
        """Fill it; how many bytes found room, at least one."""
        self.level = os.write(self.fd, data)
        return self.level

    def send(self, out: int, most: int) -> int:
        """Move to `out` what it takes of `most` bytes; how many that were. BlockingIOError where it takes none now."""
        sent = os.splice(self.fd, out, min(self.level, most), flags=os.SPLICE_F_NONBLOCK)
        self.level -= sent
        return sent

    def clear(self) -> None:
        """Throw away what is in it."""
        while self.level:
            self.level -= len(os.read(self.fd, self.level))

    def close(self) -> None:
        os.close(self.fd)
