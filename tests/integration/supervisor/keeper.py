"""A service manager for tests: keeps the descriptors it is given, and hands copies to the next agent."""

import os
import socket
import threading
from pathlib import Path

from agent.linux.fdstore import FdStore, Inherited
from agent.wire import sdnotify


class Keeper:
    """Hears in a thread of its own, as a manager is a process of its own; `close` ends it."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._kept: dict[str, list[int]] = {}
        self.store = FdStore(str(folder / "notify"))
        self._hearing = threading.Thread(target=self._hear)
        self._hearing.start()

    def _hear(self) -> None:
        while True:
            said, fds, _, _ = socket.recv_fds(self._socket, sdnotify.DATAGRAM_BYTES_MAX, 4)
            notice = sdnotify.parse(said)
            if notice.fd_store:
                assert not notice.fd_poll
                self._kept.setdefault(notice.fd_name or "", []).extend(fds)
                continue
            for fd in fds:
                os.close(fd)
            if notice.fd_store_remove:
                for fd in self._kept.pop(notice.fd_name or "", []):
                    os.close(fd)
            if notice.stopping:
                return

    def names(self) -> list[str]:
        assert self.store.barrier()
        return sorted(self._kept)

    def kept(self) -> dict[str, list[int]]:
        """The keeper's own descriptors, by name."""
        return {name: self._kept[name] for name in self.names()}

    def inherited(self) -> Inherited:
        """What a next process would find."""
        return Inherited({name: [os.dup(fd) for fd in self._kept[name]] for name in self.names()})

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(sdnotify.build(sdnotify.Notice(stopping=True)), self._socket.getsockname())
        self._hearing.join()
        self._socket.close()
        for fds in self._kept.values():
            for fd in fds:
                os.close(fd)
