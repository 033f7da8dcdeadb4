"""Who is at the other end of a unix socket, by the kernel's word: its user and all of its groups when it connected.

Rules: nothing is looked up by the peer's pid, which may be another's by now, nor in the group database, which says who
may join a group and not who was in it: a shell that is older than `usermod` is not.
"""

import os
import socket
import struct
from typing import Final

from msgspec import Struct

_SO_PEERGROUPS: Final = 59
_UCRED: Final = struct.Struct("=iII")
_GROUP: Final = struct.Struct("=I")
_GROUPS_MAX: Final = 256
"""Python asks for at most 1,024 bytes. Of a peer in more groups than that, only its first one counts."""


class Peer(Struct, frozen=True):
    pid: int
    uid: int
    groups: frozenset[int]

    def may_enter(self, group: int | None) -> bool:
        """Whether it is root, our own user, or in `group`."""
        return self.uid in (0, os.geteuid()) or (group is not None and group in self.groups)


def peer_of(connection: int) -> Peer:
    """The process that connected, for the number of a connected unix socket; raises OSError."""
    with socket.socket(fileno=os.dup(connection)) as sock:
        pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        try:
            more = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_MAX * _GROUP.size)
        except OSError:
            more = b""
    return Peer(pid, uid, frozenset({gid, *(group for (group,) in _GROUP.iter_unpack(more))}))
