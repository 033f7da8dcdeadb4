"""The streams of a process that somebody watches: they end with this agent.

Rules: bytes as they come, nothing kept; our ends never block.
"""

import contextlib
import errno
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import anyio

from agent.linux.terminal import Pty

CHUNK_BYTES: Final = 64 * 1024


class Watched:
    """The streams of a process that somebody watches: pipes, or a terminal of `size`; without `takes_input` no input.

    Our ends never block; its own are closed here once it has them.
    """

    def __init__(self, size: tuple[int, int] | None, *, takes_input: bool) -> None:
        """Raises OSError where no descriptor is left."""
        self.stdin: int | Path | None = None
        """Of the process; None: /dev/null."""
        self.silent = anyio.Event()
        """Set when all its output was read to its end."""
        self._pty: Pty | None = None
        self._input: int | None = None
        self._alone = False
        self.theirs: tuple[int, ...]
        """The ends of the process, until it was `given` them."""
        self._readers: tuple[int, ...]
        if size is not None:
            self._pty = pty = Pty(*size)
            self.stdin, self._input = pty.path, pty.master
            self.theirs, self._readers = (pty.slave,), (pty.master,)
            self.output = (pty.slave, pty.slave)
        else:
            self._take_pipes(takes_input=takes_input)
        self._talking = len(self._readers)

    def _take_pipes(self, *, takes_input: bool) -> None:
        with ExitStack() as opened:  # closed again where a later one cannot be had

            def pipe() -> tuple[int, int]:
                ends = os.pipe2(os.O_CLOEXEC)
                for fd in ends:
                    opened.callback(os.close, fd)
                return ends

            stdout, stderr, stdin = pipe(), pipe(), pipe() if takes_input else None
            opened.pop_all()
        self.output, self._readers = (stdout[1], stderr[1]), (stdout[0], stderr[0])
        self.theirs = self.output
        if stdin is not None:
            self.stdin, self._input = stdin
            self.theirs = (*self.output, stdin[0])
            os.set_blocking(stdin[1], False)
        for fd in self._readers:
            os.set_blocking(fd, False)

    @property
    def outputs(self) -> range:
        """Their numbers, for `read`."""
        return range(len(self._readers))

    def given(self) -> None:
        """It has its ends, or never will."""
        for fd in self.theirs:
            os.close(fd)
        self.theirs = ()

    def alone(self) -> None:
        """Nobody of it lives any more: what is not there by now will not come, whoever else may hold the other end."""
        self._alone = True
        for fd in self._readers:
            anyio.notify_closing(fd)

    async def read(self, number: int) -> bytes:
        """What it has written to its first or second output; nothing at the end. A terminal has one output only."""
        data = await self._read(self._readers[number])
        if not data:
            self._talking -= 1
            if not self._talking:
                self.silent.set()
        return data

    async def _read(self, fd: int) -> bytes:
        while True:
            try:
                return os.read(fd, CHUNK_BYTES)
            except BlockingIOError:
                if self._alone:
                    return b""
            except OSError as error:
                if error.errno == errno.EIO:  # a terminal that nobody has open any more
                    return b""
                raise
            with contextlib.suppress(anyio.ClosedResourceError):
                await anyio.wait_readable(fd)

    async def write(self, data: bytes) -> bool:
        """Let it read this; whether it still reads at all."""
        rest = memoryview(data)
        while rest and self._input is not None:
            try:
                rest = rest[os.write(self._input, rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._input)
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO):
                    raise
                self.end_input()
        return self._input is not None

    def end_input(self) -> None:
        """Let it read the end; of a terminal that is a key which its user presses."""
        if self._input is not None and self._pty is None:
            os.close(self._input)
        self._input = None

    def resize(self, rows: int, columns: int) -> None:
        if self._pty is not None:
            self._pty.resize(rows, columns)

    def close(self) -> None:
        """Nobody reads or writes any more."""
        self.given()
        self.end_input()
        self._pty = None  # a window may be resized yet
        for fd in self._readers:
            os.close(fd)
