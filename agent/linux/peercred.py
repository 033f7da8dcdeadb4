"""Who is at the other end of a unix socket: the kernel's word (SO_PEERCRED), taken when the peer connected."""

import socket
import struct
from typing import Final, Protocol

from msgspec import Struct

_UCRED: Final = struct.Struct("=iII")


class Connected(Protocol):
    """A socket, or what asyncio and uvloop give in its place."""

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes: ...


class Peer(Struct, frozen=True):
    pid: int
    uid: int
    gid: int


def peer_of(connected: Connected) -> Peer:
    return Peer(*_UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))
