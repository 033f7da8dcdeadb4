"""What the tests of the router share: a group on an address of its own, and clients that say who answered them."""

import itertools
import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.model.address import Address
from agent.traffic.reuseport import Group

_ports = itertools.count(20_000 + os.getpid() * 37 % 10_000)  # apart from those of tests that run beside


@pytest.fixture
def address() -> Address:
    """An address that no other test uses."""
    return Address("127.20.0.7", next(_ports))


@pytest.fixture
def group(address: Address) -> Iterator[Group]:
    """A group with its parked socket and nobody else."""
    opened = Group.open(address)
    assert isinstance(opened, Group), opened
    yield opened
    opened.close()


@contextmanager
def client(to: Address, source: str = "127.20.0.8") -> Iterator[socket.socket]:
    """Connect to a group as somebody with this address."""
    target = Address("127.0.0.1", to.port) if to.host in ("0.0.0.0", "::") else to  # noqa: S104 - compared, not bound
    with socket.create_connection((target.host, target.port), timeout=5, source_address=(source, 0)) as connected:
        yield connected


def answered(group: Group, connections: int, source: str = "127.20.0.8") -> Counter[int]:
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
