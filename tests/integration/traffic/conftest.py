"""What the tests of the router share: a group on an address of its own, and clients that say who answered them."""

import itertools
import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.linux import sockets
from agent.model.address import Address
from agent.traffic.reuseport import Group
from agent.wire.bpf import alone_address, alone_mark

_ports = itertools.count(20_000 + os.getpid() * 37 % 10_000)  # apart from those of tests that run beside


@pytest.fixture
def address() -> Address:
    """An address that no other test uses."""
    return Address("127.20.0.7", next(_ports))


class Alone(int):
    """In the place of a source address: whoever connects reaches this slot alone."""


@pytest.fixture(params=["127.20.0.7", "::1"])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    """A group with its parked socket and nobody else, on an address of IPv4 or of IPv6."""
    opened = Group.open(Address(request.param, next(_ports)))
    assert isinstance(opened, Group), opened
    yield opened
    opened.close()


@contextmanager
def client(to: Address, source: str | Alone = "") -> Iterator[socket.socket]:
    """Connect to a group as somebody with this address."""
    target = Address("127.0.0.1", to.port) if to.host in ("0.0.0.0", "::") else to  # noqa: S104 - compared, not bound
    by_ipv6 = ":" in target.host
    with socket.socket(socket.AF_INET6 if by_ipv6 else socket.AF_INET) as connected:
        connected.settimeout(5)
        if isinstance(source, Alone):
            if by_ipv6:
                sockets.set_mark(connected, alone_mark(source))
            source = target.host if by_ipv6 else alone_address(source)
        connected.bind((source or (target.host if by_ipv6 else "127.20.0.8"), 0))
        connected.connect((target.host, target.port))
        yield connected


def answered(group: Group, connections: int, source: str | Alone = "") -> Counter[int]:
    """Connect so many times; how many connections each slot was given, none of them accepted by an app."""
    before = {slot: group.queue_length(slot) for slot in group.members}
    for _ in range(connections):
        with client(group.address, source):
            pass
    after = Counter({slot: group.queue_length(slot) - before[slot] for slot in group.members})
    for slot in group.members:
        group.accept_and_close(slot)
    return +after


def outlived(group: Group) -> dict[int, socket.socket]:
    """The end of the agent: what the store keeps of the group stays, and nothing else."""
    kept = {slot: member.dup() for slot, member in group.members.items()}
    group.close()
    return kept
