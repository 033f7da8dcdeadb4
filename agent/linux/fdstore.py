"""The service manager's file descriptor store: what is put there comes back to the next process of this service.

Rules (sd_notify(3), systemd 252): always FDPOLL=0 with our own FDSTOREREMOVE, for systemd otherwise drops a descriptor
that hangs up; no file twice; the name is all that comes back beside the descriptor, it has no `:` and at most 255
characters; a refusal is silent, so count what comes back. Without a manager nothing is kept.
"""

import array
import contextlib
import fcntl
import os
import select
import socket
import sys
import termios
import threading
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Final

import structlog

from agent.wire import sdnotify
from agent.wire.sdnotify import Notice

FIRST_FD: Final = 3
SEND_WITHIN_S: Final = 5.0
HEARD_WITHIN_S: Final = 5.0
_WORD_BYTES: Final = 768
"""What a short word that nobody has heard yet counts for in its sender's queue."""
_QUEUE: Final = Path("/proc/sys/net/unix/max_dgram_qlen")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class FdStore:
    """Puts in and takes out. Calls may wait for the manager, at most `SEND_WITHIN_S`: make them in a thread."""

    def __init__(self, notify_socket: str | None) -> None:
        self._address = f"\0{notify_socket[1:]}" if notify_socket and notify_socket[0] == "@" else notify_socket
        self._socket: socket.socket | None = None
        if self._address:  # held for as long as we live: what ends an instance must not need a descriptor for it
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(SEND_WITHIN_S)
        self._queue_words = _queue_words()
        self._told = False

    @property
    def keeps(self) -> bool:
        """Whether there is a manager that may keep something."""
        return bool(self._address)

    def has_room(self, words: int) -> bool:
        """Whether so many words can be said now without waiting for the manager, or there is none."""
        if words == 0 or self._socket is None:
            return True
        unheard_bytes = int.from_bytes(fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return unheard_bytes // _WORD_BYTES + words <= self._queue_words

    def put(self, name: str, *fds: int) -> None:
        """Have copies kept under `name`, until `drop`, by one word however many they are."""
        self._say(sdnotify.build_store(name), *fds)

    def drop(self, name: str) -> None:
        """Forget every descriptor of this name."""
        self._say(sdnotify.build_remove(name))

    def barrier(self) -> bool:
        """Wait until everything said before is done; False where nobody answered in time."""
        if not self._address:
            return False
        try:
            ours, theirs = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            log.warning("the service manager cannot be waited for", reason=str(error))
            return False
        try:
            self._say(sdnotify.build(Notice(barrier=True)), theirs)
            os.close(theirs)
            poll = select.poll()
            poll.register(ours, 0)
            return bool(poll.poll(HEARD_WITHIN_S * 1_000))
        finally:
            os.close(ours)

    def _say(self, word: bytes, *fds: int) -> None:
        if self._socket is None:
            return
        try:
            # Not socket.send_fds, which in Python 3.11 forgets the address.
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            self._socket.sendmsg([word], rights, 0, self._address)
        except OSError as error:
            if not self._told:
                self._told = True
                log.warning("the service manager keeps nothing for a next agent", reason=str(error))


def _queue_words() -> int:
    """How many words wait at most for somebody to hear them."""
    try:
        return int(_QUEUE.read_text("ascii"))
    except (OSError, ValueError):
        return 0


class Inherited:
    """What an earlier process of this service left, by name; whoever takes one owns it."""

    def __init__(self, fds: Mapping[str, list[int]]) -> None:
        self._fds = {name: list(held) for name, held in fds.items()}
        self._in_use = set[str]()
        self._dropping = threading.Lock()

    def names(self) -> list[str]:
        return sorted(self._fds)

    def take(self, name: str, is_right: Callable[[int], bool] = lambda _fd: True) -> int | None:
        """One that came back under the name; what is not what the name promises is closed, as if it had not."""
        while held := self._fds.get(name):
            fd = held.pop()
            if not held:
                del self._fds[name]
            if is_right(fd):
                self._in_use.add(name)
                return fd
            os.close(fd)
        return None

    def take_all(self, name: str) -> list[int]:
        """All that came back under the name, in no order that means anything; nothing is left of it to be dropped."""
        return self._fds.pop(name, [])

    def count(self, name: str) -> int:
        """How many came back under the name and are not taken."""
        return len(self._fds.get(name, ()))

    def drop_rest(self, store: FdStore, prefix: str = "") -> None:
        """Close what nobody took, and have its name forgotten, unless another one of that name is in use.

        With a prefix all of the names that begin so: somebody else is to have them now. From any thread: whoever
        returns from it knows that none of these names is being dropped by another one either.
        """
        more = True
        while more:
            with self._dropping:
                name = next((one for one in self.names() if one.startswith(prefix)), None)
                more = name is not None
                if name is not None:
                    for fd in self._fds.pop(name, ()):
                        os.close(fd)
                    if prefix or name not in self._in_use:
                        store.drop(name)


def inherited(environ: MutableMapping[str, str], first: int = FIRST_FD) -> Inherited:
    """What LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES (sd_listen_fds(3)) hand over, taken out of the environment."""
    words = [environ.pop(name, "") for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")]
    count, pid, names = words[0], words[1], words[2].split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return Inherited({})
    found: dict[str, list[int]] = {}
    for fd, name in zip(range(first, first + int(count)), names, strict=False):
        with contextlib.suppress(OSError):  # closed before we began: it does not come back
            os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's own order
            found.setdefault(name, []).append(fd)
    return Inherited(found)
