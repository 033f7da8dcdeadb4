"""Listening TCP sockets: made for a reuseport group, refused where somebody else is, asked how many wait in them.

Rules: a socket listens when it is given, and blocks, for O_NONBLOCK would be its heirs' too; it is never inherited by
number (spawn places it); an address in use is a value that names who uses it. Other failures are OSErrors.
"""

import errno
import os
import select
import socket
import struct
from collections.abc import Collection
from typing import Final

from msgspec import Struct

from agent.linux import inetdiag, procfs
from agent.model.address import Address
from agent.wire.bpf import Mark

BACKLOG: Final = 4096
_IPV6_PACKET: Final = 6  # IPV6_2292PKTOPTIONS: of a stream, what its last packet said
_IPV6_RECVHOPLIMIT: Final = 51
_IPV6_HOPLIMIT: Final = 52
_IPV6_RECVTCLASS: Final = 66
_IPV6_TCLASS: Final = 67
_PACKET_BYTES: Final = 256
_ONE_WORD: Final = struct.Struct("=Qiii4x")  # struct cmsghdr with one integer
_UNACKED: Final = struct.Struct("=24xI")  # tcpi_unacked; of a listener the length of its accept queue


class PortInUse(Struct, frozen=True):
    """Somebody listens there already; pid 0 and no command where the kernel does not let us see who."""

    address: Address
    pid: int
    command: str

    def __str__(self) -> str:
        who = f"pid {self.pid} ({self.command})" if self.pid else "a process that this user cannot see"
        return f"{self.address} is in use by {who}"


def listen(address: Address, backlog: int = BACKLOG) -> socket.socket:
    """Add a socket to the address's reuseport group, listening at once; `[::]` takes IPv4 as well."""
    made = _made(address)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((address.host, address.port))
        made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made


def port_in_use(address: Address) -> PortInUse | None:
    """Try the address once without SO_REUSEPORT, which also finds a listener of our own user that would let us join."""
    with _made(address) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((address.host, address.port))
            tried.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return None
    found = list(listeners(address).values())
    return PortInUse(address, found[0].pid, found[0].command) if found else PortInUse(address, 0, "")


def listeners(address: Address, besides: Collection[int] = ()) -> dict[int, procfs.Owner]:
    """Who else listens where a connection to this address could arrive: inode and owner (pid 0: not to be seen)."""
    rows = inetdiag.dump(address.port, (inetdiag.LISTEN,))
    inodes = {row.inode for row in rows if Address(row.host, row.port).overlaps(address)}.difference(besides)
    seen = procfs.owners(inodes) if inodes else {}
    return {inode: seen.get(inode, procfs.Owner(0, "")) for inode in sorted(inodes)}


def queue_length(listener: socket.socket) -> int:
    """How many connections wait in this listener for an accept."""
    (waiting,) = _UNACKED.unpack(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED.size))
    return int(waiting)


def is_listening(listener: socket.socket) -> bool:
    """Whether it still listens: an app that calls shutdown() on an inherited listener ends that for every holder."""
    return listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def set_mark(ours: socket.socket, mark: Mark) -> None:
    """Have a socket of IPv6 show this to who it connects to: no privilege is needed."""
    ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, mark.hop_limit)
    ours.setsockopt(socket.IPPROTO_IPV6, _IPV6_TCLASS, mark.traffic_class)


def mark_of(connection: socket.socket) -> Mark:
    """What the other end of a connection over IPv6 shows."""
    for option in (_IPV6_RECVHOPLIMIT, _IPV6_RECVTCLASS):
        connection.setsockopt(socket.IPPROTO_IPV6, option, 1)
    told = connection.getsockopt(socket.IPPROTO_IPV6, _IPV6_PACKET, _PACKET_BYTES)
    whole = len(told) // _ONE_WORD.size * _ONE_WORD.size
    shown = {kind: value for _, _, kind, value in _ONE_WORD.iter_unpack(told[:whole])}
    return Mark(shown.get(_IPV6_HOPLIMIT, 0), shown.get(_IPV6_TCLASS, 0))


def accept_waiting(listener: socket.socket) -> tuple[socket.socket, str] | None:
    """Accept one connection that waits already, of a socket that nobody else accepts from, and whence; never blocks."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    if not (poll.poll(0) and queue_length(listener)):
        return None
    connection, (host, *_) = listener.accept()
    return connection, host


def inode(of: socket.socket) -> int:
    return os.fstat(of.fileno()).st_ino


def _made(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address.host == "::" else 1)
    return made
