"""When children began: each says so itself, by one record in a FIFO, at its first instruction (`child.c`)."""

import os
import select
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

SOURCE: Final = Path(__file__).parent / "child.c"
_RECORD: Final = struct.Struct("=qq")


class Birth(NamedTuple):
    pid: int
    at_ns: int
    """By CLOCK_MONOTONIC, as `time.monotonic_ns`."""


def build(folder: Path) -> Path:
    """Compile the child: static, so that its first instruction is its own. Raises CalledProcessError, OSError."""
    program = folder / "child"
    words = [os.environ.get("CC", "cc"), "-O2", "-static", "-o", str(program), str(SOURCE)]
    subprocess.run(words, check=True, capture_output=True)
    return program


class Births:
    """The FIFO, and what was read of it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path: Final = path
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def take(self, count: int, within_s: float) -> list[Birth]:
        """The next `count`, in their own order of time; fewer where not all have come within that time."""
        data, end_s = b"", time.monotonic() + within_s
        readable = select.poll()  # select(2) knows no number above 1023
        readable.register(self._fd, select.POLLIN)
        while len(data) < count * _RECORD.size and (left_s := end_s - time.monotonic()) > 0:
            if readable.poll(left_s * 1_000):
                data += os.read(self._fd, count * _RECORD.size - len(data))
        found = [Birth(*_RECORD.unpack_from(data, at)) for at in range(0, len(data), _RECORD.size)]
        return sorted(found, key=lambda birth: birth.at_ns)

    def forget(self) -> None:
        """Of whom nothing is asked any more."""
        with suppress(BlockingIOError):
            while os.read(self._fd, 1 << 16):
                pass

    def close(self) -> None:
        os.close(self._fd)
