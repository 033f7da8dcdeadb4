"""One log pipe of an instance: the FIFO that it writes into, and the file in memory into which its bytes are taken.

What is taken is in that file by the same system call (`linux.intake`); how far it has become records is committed with
the records (`logs`). So a next agent, which gets both back from the FD store, goes on at the very byte.

Rules: the agent holds the FIFO open both ways, so that it never ends, and reads it by a description of its own, for the
instance's would share O_NONBLOCK. Failures are OSErrors; calls may wait for the service manager: make them in a thread.
"""

import os
from contextlib import ExitStack
from typing import Final

from agent.linux import fifo, memfd
from agent.linux.fdstore import FdStore, Inherited
from agent.linux.intake import Intake
from agent.supervisor.folder import Folder

CHUNK_BYTES: Final = 256 * 1024


class Pipe:
    """Made by `make` or `adopt`. `writer` is what the instance inherits."""

    def __init__(self, name: str, writer: int, reader: int, intake: Intake) -> None:
        self.name: Final = name
        self.writer: Final = writer
        self.reader: Final = reader
        self._intake: Final = intake

    @classmethod
    def make(cls, folder: Folder, store: FdStore, key: str, name: str) -> "Pipe":
        path = folder.path / name
        fifo.make(path)
        with ExitStack() as opened:  # closed again where a later one cannot be had

            def owned(fd: int) -> int:
                opened.callback(os.close, fd)
                return fd

            writer = owned(fifo.open_for_child(path))
            fifo.enlarge(writer)
            intake = Intake.create(f"{key}/{name}")
            opened.callback(intake.close)
            pipe = cls(name, writer, owned(fifo.open_reader(path)), intake)
            for kept, fd in zip(kept_as(key, name), (pipe.writer, intake.fd), strict=True):
                store.put(kept, fd)
            opened.pop_all()
        return pipe

    @classmethod
    def adopt(cls, folder: Folder, store: FdStore, inherited: Inherited, key: str, name: str) -> "Pipe | None":
        """Take up what an earlier agent had; by its path where the store is empty; None where the FIFO is gone."""
        in_store, taken_in_store = kept_as(key, name)
        writer, taken = inherited.take(in_store, fifo.is_fifo), inherited.take(taken_in_store, memfd.is_file)
        if writer is None:
            try:
                writer = fifo.open_for_child(folder.path / name)
            except OSError:
                if taken is not None:
                    os.close(taken)
                return None
            store.drop(in_store)  # what came back and was not it
            store.put(in_store, writer)
        intake = Intake.adopt(taken) if taken is not None else None
        if intake is None:
            if taken is not None:
                os.close(taken)
            intake = Intake.create(f"{key}/{name}")
            store.drop(taken_in_store)
            store.put(taken_in_store, intake.fd)
        return cls(name, writer, fifo.open_again(writer), intake)

    @property
    def taken(self) -> int:
        """How many bytes have been taken from the FIFO in all its life."""
        return self._intake.taken

    def take(self) -> None:
        """Take the next bytes, of which most that were taken before are in records; BlockingIOError where none wait."""
        self._intake.take(self.reader, CHUNK_BYTES)

    def since(self, used: int) -> memoryview | None:
        """What was taken after the first `used` bytes; None where that is not all there any more."""
        return self._intake.since(used)

    def forget(self, used: int) -> None:
        """The first `used` bytes are in records, or of no interest to anybody any more."""
        self._intake.forget(used)

    def close(self, store: FdStore, key: str) -> None:
        """The process is gone and what it wrote is read; nobody reads any more."""
        os.close(self.reader)
        for kept in kept_as(key, self.name):
            store.drop(kept)
        os.close(self.writer)
        self._intake.close()


def kept_as(key: str, name: str) -> tuple[str, str]:
    """Under which names the FD store has the FIFO and the file."""
    return f"{key}/{name}", f"{key}/{name}-taken"
