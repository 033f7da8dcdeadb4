"""What the kernel tells of a port: who listens, how many wait, whose connections are left."""

import os
import socket
from collections.abc import Iterator

import pytest

from agent.linux import inetdiag, procfs, sockets
from agent.linux.inetdiag import Connections
from agent.model.address import Address
from tests.integration.linux.conftest import PYTHON, Start

PORT = 20_000 + os.getpid() * 37 % 10_000  # apart from those of tests that run beside
ECHO = """
import socket, sys
listener = socket.socket(fileno=3)
kept = [listener.accept()[0] for _ in range(int(sys.argv[1]))]
print("accepted", flush=True)
listener.close()
kept.pop().close()
print("closed one", flush=True)
sys.stdout.flush(); kept[0].recv(1)
"""


@pytest.fixture(params=["127.20.0.3", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Somebody listens, over IPv4 and over IPv6."""
    with sockets.listen(Address(request.param, PORT)) as made:
        yield made


def connected(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname()[:2])


def test_the_accept_queue_is_counted(listener: socket.socket) -> None:
    """Connections that wait for an accept are seen without disturbing them."""
    with connected(listener), connected(listener):
        assert sockets.queue_length(listener) == 2
        rows = inetdiag.dump(PORT, (inetdiag.LISTEN,))
        assert [(row.queue, row.inode) for row in rows] == [(2, sockets.inode(listener))]
        waiting = sockets.accept_waiting(listener)
        assert waiting is not None
        waiting[0].close()
        assert sockets.queue_length(listener) == 1


def test_the_connections_of_one_process_are_counted(listener: socket.socket, start: Start) -> None:
    """A drain sees the connections that its instance holds, and not those of others on the same port."""
    process = start(PYTHON, "-c", ECHO, "3", listen=(listener.fileno(),))
    clients = [connected(listener) for _ in range(3)]
    assert process.line() == "accepted"
    assert process.line() == "closed one"
    others = connected(listener)
    inodes = procfs.socket_inodes([process.pid])
    assert inetdiag.connections(PORT, inodes) == Connections(established=2, syn_received=0)
    assert inetdiag.connections(PORT, ()) == Connections(established=0, syn_received=0)
    for client in (*clients, others):
        client.close()


def test_a_handshake_under_way_is_seen(listener: socket.socket) -> None:
    """A connection that is neither in the queue nor established yet is not overlooked by a drain."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    with connected(listener):
        assert sockets.queue_length(listener) == 0
        assert inetdiag.connections(PORT, ()) == Connections(established=0, syn_received=1)


def test_who_listens_is_named(listener: socket.socket, start: Start) -> None:
    """Who listens on an address is found with pid and command; other addresses of the port do not matter."""
    address = Address(listener.getsockname()[0], PORT)
    assert sockets.listeners(address) == {
        sockets.inode(listener): procfs.Owner(os.getpid(), procfs.command(os.getpid()))
    }
    assert sockets.listeners(address, besides={sockets.inode(listener)}) == {}
    assert sockets.listeners(Address("127.20.0.4", PORT)) == {}
    assert sockets.port_in_use(Address("127.20.0.4", PORT)) is None


def test_a_listener_that_was_shut_down_is_known(listener: socket.socket) -> None:
    """shutdown() on any copy of a listener ends it for all, and that is seen."""
    assert sockets.is_listening(listener)
    with listener.dup() as copy:
        copy.shutdown(socket.SHUT_RDWR)
    assert not sockets.is_listening(listener)
