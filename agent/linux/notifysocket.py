"""A socket on which processes speak by sd_notify(3): datagrams are looked at first, taken off when they are dealt with.

Rules: descriptors that come along are closed at once; the copy of them that waits with its datagram is closed when that
is taken off, which is what a sender of BARRIER=1 waits for. Who sent it is the kernel's word. Nothing here waits.
"""

import array
import errno
import os
import socket
import stat
import struct
from typing import Final

from msgspec import Struct

from agent.wire.sdnotify import DATAGRAM_BYTES_MAX

PATH_BYTES_MAX: Final = 107
"""What a kernel address holds (unix(7)); who speaks has no way around it."""
_UCRED: Final = struct.Struct("=iII")
_NOBODY: Final = (-1, -1)
_FDS_MAX: Final = 16
_BESIDE_BYTES: Final = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(_FDS_MAX * 4)


class Said(Struct, frozen=True):
    datagram: bytes
    pid: int
    """Who sent it; 0 where that process cannot be seen from here."""


def can_bind(path: str) -> bool:
    """Whether a process can be told to speak to `path`."""
    return len(os.fsencode(path)) <= PATH_BYTES_MAX


def is_notify_socket(fd: int) -> bool:
    """Whether the descriptor can be one of these."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    with socket.socket(fileno=os.dup(fd)) as sock:
        return (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_DGRAM)


def bind(path: str) -> socket.socket:
    """Hear at `path`, our own user alone; what was there is replaced, its owner kept. Raises OSError, naming it."""
    if not can_bind(path):
        raise OSError(errno.ENAMETOOLONG, "the path of a socket may have 107 bytes", path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        _bind(made, path)
    except OSError:
        made.close()
        raise
    return made


def _bind(made: socket.socket, path: str) -> None:
    """Mostly nothing is there."""
    owner = _NOBODY
    try:
        made.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        owner = _owner(path)
        os.unlink(path)  # noqa: PTH108 - as text, as at each start
        made.bind(path)
    os.chmod(path, 0o600)  # noqa: PTH101 - as above
    if owner != _NOBODY:
        os.chown(path, *owner)


def _owner(path: str) -> tuple[int, int]:
    """Of what is there."""
    found = os.lstat(path)
    return found.st_uid, found.st_gid


def look(sock: socket.socket) -> Said | None:
    """What waits longest, and goes on waiting; None where nothing does."""
    return _receive(sock, socket.MSG_PEEK)


def drop(sock: socket.socket) -> None:
    """Take off what waits longest."""
    _receive(sock, 0)


def _receive(sock: socket.socket, flags: int) -> Said | None:
    try:
        datagram, beside, _, _ = sock.recvmsg(
            DATAGRAM_BYTES_MAX, _BESIDE_BYTES, flags | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        )
    except BlockingIOError:
        return None
    pid = 0
    for level, kind, data in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid = _UCRED.unpack_from(data)[0]
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            for given in array.array("i", data[: len(data) - len(data) % 4]):
                os.close(given)
    return Said(datagram, pid)
