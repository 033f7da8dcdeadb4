"""One log pipe of an instance: the FIFO that it writes into, and the file in memory into which its bytes are taken.

What is taken is in that file by the same system call (`linux.intake`); how far it has become records is committed with
the records (`logs`). So a next agent, which gets both back from the FD store, goes on at the very byte. The file is
made for the first byte, by `open`: hundreds start at once, and many write nothing.

Rules: the agent holds the FIFO open both ways, so that it never ends, and reads it by a description of its own, for the
instance's would share O_NONBLOCK. Failures are OSErrors; calls may wait for the service manager: make them in a thread.
"""

import os
from typing import Final

from agent.linux import fifo
from agent.linux.fdstore import FdStore
from agent.linux.intake import Intake
from agent.supervisor.folder import Folder

CHUNK_BYTES: Final = 256 * 1024


class Pipe:
    """Made by `make` or `adopt`. `writer` is what the instance inherits, and the FD store keeps (`ways`)."""

    def __init__(self, name: str, writer: int, reader: int, intake: Intake | None = None) -> None:
        self.name: Final = name
        self.writer: Final = writer
        self.reader: Final = reader
        self._intake = intake

    @classmethod
    def make(cls, folder: Folder, name: str) -> "Pipe":
        path = f"{folder.name}/{name}"
        fifo.make(path)
        writer = fifo.open_for_child(path)
        try:
            fifo.enlarge(writer)
            return cls(name, writer, fifo.open_reader(path))
        except OSError:
            os.close(writer)
            raise

    @classmethod
    def adopt(cls, folder: Folder, name: str, writer: int | None, taken: int | None) -> "Pipe | None":
        """Take up what an earlier agent had; by its path where `writer` did not come back; None where that is gone."""
        intake = Intake.adopt(taken) if taken is not None else None
        if intake is None and taken is not None:
            os.close(taken)
        try:
            writer = fifo.open_for_child(f"{folder.name}/{name}") if writer is None else writer
        except OSError:
            if intake is not None:
                intake.close()
            return None
        return cls(name, writer, fifo.open_again(writer), intake)

    def open(self, store: FdStore, key: str) -> None:
        """Have where to take bytes to: before the first `take`. Raises OSError."""
        if self._intake is None:
            intake = Intake.create(f"{key}/{self.name}")
            store.put(taken_as(key, self.name), intake.fd)
            self._intake = intake

    @property
    def is_open(self) -> bool:
        return self._intake is not None

    @property
    def has_more(self) -> bool:
        """Whether bytes wait to be taken."""
        return fifo.waiting(self.reader) > 0

    @property
    def taken(self) -> int:
        """How many bytes have been taken from the FIFO in all its life."""
        return self._intake.taken if self._intake is not None else 0

    def take(self) -> None:
        """Take the next bytes, of which most that were taken before are in records; BlockingIOError where none wait."""
        if self._intake is None:
            raise BlockingIOError
        self._intake.take(self.reader, CHUNK_BYTES)

    def since(self, used: int) -> memoryview | None:
        """What was taken after the first `used` bytes; None where that is not all there any more."""
        if self._intake is None:
            return memoryview(b"") if used == 0 else None
        return self._intake.since(used)

    def forget(self, used: int) -> None:
        """The first `used` bytes are in records, or of no interest to anybody any more."""
        if self._intake is not None:
            self._intake.forget(used)

    def close(self, store: FdStore, key: str) -> None:
        """The process is gone and what it wrote is read; nobody reads any more."""
        os.close(self.reader)
        os.close(self.writer)
        if self._intake is not None:
            store.drop(taken_as(key, self.name))
            self._intake.close()


def taken_as(key: str, name: str) -> str:
    """Under which name the FD store has the file of what was taken, where there is one."""
    return f"{key}/{name}-taken"
