"""Terminals: one of our own for a process to be on, and the caller's own in raw mode.

A process gets ours as its controlling terminal by opening its path as the leader of a session that has none (tty(4)),
which is `linux.spawn`'s part. Failures to make one are OSErrors; what is asked of one that was hung up is not done.
"""

import contextlib
import os
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_IUTF8: Final = 0o40000
"""Of termios(3), which Python's module does not name: erasing takes a whole character back."""
_DEFAULT: Final = (24, 80)


class Pty:
    """`master` is ours and never blocks; `slave` is what a process is given."""

    def __init__(self, rows: int, columns: int) -> None:
        self.master, self.slave = os.openpty()
        self.path: Final = Path(os.ttyname(self.slave))
        os.set_blocking(self.master, False)
        with contextlib.suppress(termios.error):  # a terminal that erases by bytes is one all the same
            mode = termios.tcgetattr(self.slave)
            mode[0] |= _IUTF8
            termios.tcsetattr(self.slave, termios.TCSANOW, mode)
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        """The kernel tells who is in the foreground, by SIGWINCH."""
        with contextlib.suppress(termios.error):
            termios.tcsetwinsize(self.master, (rows, columns))


def size(fds: tuple[int, ...] = (0, 1, 2)) -> tuple[int, int]:
    """Rows and columns of the first of these that is a terminal which knows them."""
    for fd in fds:
        with contextlib.suppress(termios.error):
            rows, columns = termios.tcgetwinsize(fd)
            if rows > 0 and columns > 0:
                return rows, columns
    return _DEFAULT


class Raw:
    """The caller's terminal without a meaning of its own for any key, from `set` until `restore`."""

    def __init__(self, fd: int) -> None:
        self._fd: Final = fd
        self._before = termios.tcgetattr(fd)

    def set(self) -> None:
        with contextlib.suppress(termios.error):  # it was hung up meanwhile
            tty.setraw(self._fd, termios.TCSANOW)

    def restore(self) -> None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)


@contextlib.contextmanager
def raw(fd: int) -> Iterator[Raw]:
    """In raw mode inside, as before afterwards."""
    mode = Raw(fd)
    mode.set()
    try:
        yield mode
    finally:
        mode.restore()
