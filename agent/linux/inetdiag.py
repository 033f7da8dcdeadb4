"""The kernel's table of TCP sockets on one local port, asked by inet_diag over netlink: no walk through /proc/net.

Rules: one question per IP version, answered in one go. A connection that nobody has accepted yet has inode 0.
Failures are OSErrors.
"""

import errno
import socket
import struct
from collections.abc import Collection, Iterator
from typing import Final

from msgspec import Struct

ESTABLISHED: Final = 1
SYN_RECEIVED: Final = 3
CLOSE_WAIT: Final = 8
LISTEN: Final = 10
ANY_PORT: Final = 0

_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST: Final = 1
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_ERROR: Final = 2
_DONE: Final = 3
_HEADER: Final = struct.Struct("=IHHII")
_QUESTION: Final = struct.Struct("=BBBxI" + "2s46x")
_ONE: Final = struct.Struct("=BBBxI36s4x8s")
_ANSWER: Final = struct.Struct("=BBBB" + "2s2s16s16s12x" + "IIIII")
_RECEIVE_BYTES: Final = 1 << 17


class Row(Struct, frozen=True):
    """One socket. `queue` of a listener: connections that wait to be accepted."""

    state: int
    host: str
    port: int
    peer_host: str
    peer_port: int
    queue: int
    uid: int
    inode: int


class Connections(Struct, frozen=True):
    """What a drain waits for: connections of an instance, and handshakes on the port that belong to nobody yet."""

    established: int
    syn_received: int


def dump(port: int, states: Collection[int]) -> list[Row]:
    """All TCP sockets of this network namespace with this local port, in one of these states."""
    wanted = sum(1 << state for state in states)
    families = (socket.AF_INET, socket.AF_INET6)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as netlink:
        return [row for family in families for row in _ask(netlink, family, port, wanted)]


def is_accepted(client: socket.socket) -> bool:
    """Whether the other end of a connection within this network namespace belongs to a process yet, or is gone."""
    host, port = client.getpeername()[:2]
    own_host, own_port = client.getsockname()[:2]
    ends = struct.pack("!HH16s16s", port, own_port, _packed(client.family, host), _packed(client.family, own_host))
    question = _ONE.pack(client.family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF, ends, b"\xff" * 8)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as netlink:
        netlink.send(_HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _REQUEST, 0, 0) + question)
        answer = netlink.recv(_RECEIVE_BYTES)
    if _HEADER.unpack_from(answer)[1] == _ERROR:
        code = -int.from_bytes(answer[_HEADER.size :][:4], "little", signed=True)
        if code == errno.ENOENT:
            return True  # it is gone; or this kernel has no inet_diag, and that we are connected has to do
        raise OSError(code, "inet_diag cannot be asked")
    return _row(answer, _HEADER.size).inode != 0


def _packed(family: int, host: str) -> bytes:
    return socket.inet_pton(family, host).ljust(16, b"\0")


def connections(port: int, inodes: Collection[int]) -> Connections:
    """Count the connections among `inodes` (the sockets of an instance's processes), and the port's handshakes."""
    rows = dump(port, (ESTABLISHED, CLOSE_WAIT, SYN_RECEIVED))
    mine = set(inodes)
    return Connections(
        established=sum(row.inode in mine for row in rows if row.state in (ESTABLISHED, CLOSE_WAIT)),
        syn_received=sum(row.state == SYN_RECEIVED for row in rows),
    )


def _ask(netlink: socket.socket, family: int, port: int, states: int) -> Iterator[Row]:
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, states, port.to_bytes(2, "big"))
    netlink.send(_HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _DUMP, 0, 0) + question)
    while True:
        answer = netlink.recv(_RECEIVE_BYTES)
        offset = 0
        while offset < len(answer):
            length, kind, *_ = _HEADER.unpack_from(answer, offset)
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -int.from_bytes(answer[offset + _HEADER.size :][:4], "little", signed=True)
                raise OSError(code, "inet_diag cannot be asked")
            yield _row(answer, offset + _HEADER.size)
            offset += (length + 3) & ~3


def _row(answer: bytes, offset: int) -> Row:
    family, state, _, _, port, peer_port, host, peer, _, queue, _, uid, inode = _ANSWER.unpack_from(answer, offset)
    size = 4 if family == socket.AF_INET else 16
    return Row(
        state,
        socket.inet_ntop(family, host[:size]),
        int.from_bytes(port, "big"),
        socket.inet_ntop(family, peer[:size]),
        int.from_bytes(peer_port, "big"),
        queue,
        uid,
        inode,
    )
