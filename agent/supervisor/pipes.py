"""One log pipe of an instance: the FIFO that it writes into, and the file in memory into which its bytes are taken.

Bytes move from the FIFO by splice(2), which moves the file's position with them; how far they have become records is
committed with the records (`logs`). So a next agent, which gets both back from the FD store, goes on at the very byte.

Rules: the agent holds the FIFO open both ways, so that it never ends, and reads it by a description of its own, for the
instance's would share O_NONBLOCK. Failures are OSErrors; calls may wait for the service manager: make them in a thread.
"""

import os
from contextlib import ExitStack
from typing import Final

from agent.linux import fifo, memfd
from agent.linux.fdstore import FdStore, Inherited
from agent.supervisor.folder import Folder

CHUNK_BYTES: Final = 256 * 1024
_STEP_BYTES: Final = 128 * 1024


class Pipe:
    """Made by `make` or `adopt`. `writer` is what the instance inherits."""

    def __init__(self, name: str, writer: int, reader: int, intake: int) -> None:
        self.name: Final = name
        self.writer: Final = writer
        self.reader: Final = reader
        self._intake: Final = intake
        self._taken = memfd.position(intake)
        self._forgotten = 0

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
            pipe = cls(name, writer, owned(fifo.open_reader(path)), owned(memfd.create(f"{key}/{name}")))
            for kept, fd in zip(kept_as(key, name), (pipe.writer, pipe._intake), strict=True):
                store.put(kept, fd)
            opened.pop_all()
        return pipe

    @classmethod
    def adopt(cls, folder: Folder, store: FdStore, inherited: Inherited, key: str, name: str) -> "Pipe | None":
        """Take up what an earlier agent had; by its path where the store is empty; None where the FIFO is gone."""
        in_store, taken_in_store = kept_as(key, name)
        writer, intake = inherited.take(in_store, fifo.is_fifo), inherited.take(taken_in_store, memfd.is_file)
        if writer is None:
            try:
                writer = fifo.open_for_child(folder.path / name)
            except OSError:
                if intake is not None:
                    os.close(intake)
                return None
            store.drop(in_store)  # what came back and was not it
            store.put(in_store, writer)
        if intake is None:
            intake = memfd.create(f"{key}/{name}")
            store.drop(taken_in_store)
            store.put(taken_in_store, intake)
        return cls(name, writer, fifo.open_again(writer), intake)

    @property
    def taken(self) -> int:
        """How many bytes have been taken from the FIFO in all its life: nobody but us moves the file's position."""
        return self._taken

    def take(self) -> bytes:
        """The next bytes, now in our memory; BlockingIOError where nothing waits."""
        start = self._taken
        self._taken += memfd.take(self._intake, self.reader, CHUNK_BYTES)
        return self.read(start)

    def read(self, start: int) -> bytes:
        """What was taken from `start` on."""
        return os.pread(self._intake, self._taken - start, start) if start < self._taken else b""

    def begin_at(self, used: int) -> None:
        """The first `used` bytes are of no interest to anybody any more."""
        self._forgotten = max(self._forgotten, memfd.page_floor(used))

    def forget(self, used: int) -> None:
        """The first `used` bytes are in records that are committed."""
        end = memfd.page_floor(used)
        if end - self._forgotten >= _STEP_BYTES:
            memfd.forget(self._intake, self._forgotten, end)
            self._forgotten = end

    def renew(self) -> None:
        """What was taken so far is in records, or of no interest: another process is to have it."""
        end = memfd.page_floor(self._taken)
        memfd.forget(self._intake, self._forgotten, end)
        self._forgotten = end

    def close(self, store: FdStore, key: str) -> None:
        """The process is gone and what it wrote is read; nobody reads any more."""
        os.close(self.reader)
        for kept, fd in zip(kept_as(key, self.name), (self.writer, self._intake), strict=True):
            store.drop(kept)
            os.close(fd)


def kept_as(key: str, name: str) -> tuple[str, str]:
    """Under which names the FD store has the FIFO and the file."""
    return f"{key}/{name}", f"{key}/{name}-taken"
