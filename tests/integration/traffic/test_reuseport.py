"""Which instance real connections reach: by weight, alone, while nobody is ready, and after an app broke the order."""

import os
import resource
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from agent.linux import sockets
from agent.linux.sockets import PortInUse
from agent.model.address import Address
from agent.traffic.reuseport import PARKED, Group, Traffic
from agent.wire import bpf
from tests.integration.ready import is_readable
from tests.integration.traffic.conftest import Alone, answered, client, outlived

IPV6_FREEBIND: Final = 78


@pytest.fixture
def foreign(address: Address) -> Iterator[socket.socket]:
    """Somebody of our own user who listens with SO_REUSEPORT: the kernel would let us join, and them."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((address.host, address.port))
        listener.listen()
        yield listener


def test_a_port_in_use_is_refused_by_name(foreign: socket.socket, address: Address) -> None:
    """A port that anybody uses, our own user too, is refused with the pid and the command of who does."""
    refused = Group.open(address)
    assert isinstance(refused, PortInUse)
    assert refused.pid == os.getpid()
    assert "python" in refused.command or "pytest" in refused.command
    assert str(refused) == f"{address} is in use by pid {os.getpid()} ({refused.command})"


def test_a_wildcard_that_covers_a_used_address_is_refused(foreign: socket.socket, address: Address) -> None:
    """All addresses at once are in use where one of them is."""
    assert isinstance(Group.open(Address("0.0.0.0", address.port)), PortInUse)  # noqa: S104 - what the test is about


def test_a_stranger_who_joins_later_is_seen(group: Group) -> None:
    """Somebody who joins the group unasked is named; our own sockets are no strangers."""
    group.slot_socket(0)

    def strangers() -> list[int | None]:
        return [owner.pid for owner in sockets.listeners(group.address, besides=group.inodes()).values()]

    assert strangers() == []
    with sockets.listen(group.address):
        assert strangers() == [os.getpid()]
    assert strangers() == []


def test_weights_are_kept(group: Group) -> None:
    """Of 3,000 connections a canary of 10 % gets its tenth, an instance without weight none."""
    group.slot_socket(2)
    group.admit(Traffic({0: 90, 1: 10}))
    got = Counter[int]()
    for _ in range(3):
        got += answered(group, 1000)
    assert set(got) == {0, 1}
    assert got[1] / 3000 == pytest.approx(0.1, abs=0.03)


def test_nobody_ready_goes_to_the_parked_socket(group: Group) -> None:
    """Without an admitted instance nobody reaches an unready one."""
    group.slot_socket(0)
    assert answered(group, 50) == {PARKED: 50}
    group.admit(Traffic({0: 1}))
    assert answered(group, 50) == {0: 50}
    group.admit(Traffic())
    assert answered(group, 50) == {PARKED: 50}


def test_connections_wait_for_the_starting_instance(group: Group) -> None:
    """While an instance starts and nobody else is ready, connections wait in its queue and are then answered."""
    group.admit(Traffic(waiting=3))
    with client(group.address) as waiting:
        assert group.queue_length(3) == 1
        accepted, _ = group.slot_socket(3).accept()
        with accepted:
            accepted.sendall(b"hello")
        assert waiting.recv(5) == b"hello"


def test_each_slot_is_reached_alone(group: Group) -> None:
    """A probe reaches its own instance, ready or not, and never a neighbour; an unknown slot's reaches none."""
    group.admit(Traffic({0: 1, 1: 1}))
    group.slot_socket(5)
    for slot in (0, 1, 5):
        assert answered(group, 20, Alone(slot)) == {slot: 20}
    assert answered(group, 20, Alone(6)) == {PARKED: 20}


def test_slots_that_are_opened_together_are_reached_alone(group: Group) -> None:
    """Many at once, beside some that are there and get traffic: nobody is moved, and each has its own place."""
    group.admit(Traffic({3: 1}))
    group.open_slots(range(8))
    group.admit(Traffic({3: 1}))
    assert answered(group, 20) == {3: 20}
    for slot in range(8):
        assert answered(group, 5, Alone(slot)) == {slot: 5}


def test_slots_that_cannot_all_be_opened_are_right_as_far_as_they_go(group: Group) -> None:
    """Where the kernel refuses one of several, those before it are reached all the same, and tried again it comes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 2, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            group.open_slots(range(4))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(group.members) < len((PARKED, *range(4)))
    group.open_slots(range(4))
    for slot in range(4):
        assert answered(group, 5, Alone(slot)) == {slot: 5}


@pytest.mark.parametrize("group", ["127.20.0.7"], indirect=True)  # the one address of IPv6 is always the same source
def test_sticky_clients_stay(group: Group) -> None:
    """With sticky on, one address keeps its instance."""
    group.admit(Traffic({0: 1, 1: 1}, sticky=True))
    found = {source: set(answered(group, 10, f"127.20.5.{source}")) for source in range(1, 17)}
    assert all(len(slots) == 1 for slots in found.values())
    assert set().union(*found.values()) == {0, 1}


def test_a_drained_instance_keeps_what_waits_in_its_queue(group: Group) -> None:
    """Taking an instance out of the program loses no connection that it has not accepted yet."""
    group.admit(Traffic({0: 1}))
    with client(group.address) as waiting:
        waiting.sendall(b"ping")
        group.admit(Traffic({1: 1}))
        with client(group.address):
            assert (group.queue_length(0), group.queue_length(1)) == (1, 1)
        accepted, _ = group.slot_socket(0).accept()
        with accepted:
            assert accepted.recv(4) == b"ping"
            accepted.sendall(b"pong")
        assert waiting.recv(4) == b"pong"


def test_what_a_dead_instance_left_is_closed_and_counted(group: Group) -> None:
    """Connections in the queue of a slot that gets no process any more do not wait for ever."""
    group.admit(Traffic({0: 1}))
    with client(group.address) as one, client(group.address) as other:
        assert group.accept_and_close(0) == 2
        assert (one.recv(1), other.recv(1)) == (b"", b"")
    assert group.accept_and_close(0) == 0


def test_a_probe_that_a_dead_instance_left_is_closed_and_not_counted(group: Group) -> None:
    """What is told as stranded are users: an agent asks until the end, and is in the queue of most that drain."""
    group.admit(Traffic({0: 1}))
    with client(group.address, Alone(0)) as probe, client(group.address) as user:
        assert group.accept_and_close(0) == 1
        assert (probe.recv(1), user.recv(1)) == (b"", b"")


@pytest.mark.parametrize("closed", [(0,), (2,), (3,), (0, 1), (0, 1, 2, 3)], ids=str)
def test_an_app_that_shuts_its_listener_down_is_mended(group: Group, closed: tuple[int, ...]) -> None:
    """After shutdown() by apps, in whatever order, every slot is reached alone again, and weights hold."""
    group.admit(Traffic(dict.fromkeys(range(4), 1)))
    for slot in reversed(closed):
        group.slot_socket(slot).shutdown(socket.SHUT_RDWR)
    assert group.mend() == closed
    assert group.mend() == ()
    for slot in range(4):
        assert answered(group, 5, Alone(slot)) == {slot: 5}
    assert set(answered(group, 60)) == {0, 1, 2, 3}
    assert group.discover()


@pytest.mark.parametrize("admitted", [(3,), (1, 3), (0,)], ids=str)
def test_an_app_that_shuts_its_listener_down_moves_nobody(group: Group, admitted: tuple[int, ...]) -> None:
    """While one instance after the other ends by shutdown(), every connection reaches who was admitted."""
    for slot in range(4):
        group.slot_socket(slot)
    group.admit(Traffic(dict.fromkeys(admitted, 1)))
    for _ in range(3):
        for slot in sorted(set(range(4)) - set(admitted)):
            group.slot_socket(slot).shutdown(socket.SHUT_RDWR)
            assert set(answered(group, 30)) == set(admitted), "before anybody has noticed"
            assert is_readable(group.ends, 5)
            assert group.settle() == (slot,)
            assert group.settle() == ()
            assert not is_readable(group.ends)
            assert set(answered(group, 30)) == set(admitted)
        group.mend()
        for slot in range(4):
            assert answered(group, 5, Alone(slot)) == {slot: 5}


def test_a_ready_instance_that_shuts_its_listener_down_gets_nothing_more(group: Group) -> None:
    """What it would have got goes to the others, and with nobody left to the parked socket."""
    group.admit(Traffic({0: 1, 1: 1}))
    group.slot_socket(0).shutdown(socket.SHUT_RDWR)
    group.settle()
    assert answered(group, 30) == {1: 30}
    group.slot_socket(1).shutdown(socket.SHUT_RDWR)
    group.settle()
    assert answered(group, 30) == {PARKED: 30}
    assert group.mend() == (0, 1)
    assert set(answered(group, 60)) == {0, 1}


def test_an_app_that_ends_by_shutdown_again_and_again_costs_no_descriptors(group: Group) -> None:
    """Though connections wait for it all the time: what takes its place is given up again."""
    group.admit(Traffic(waiting=0))

    def round_trip() -> int:
        group.slot_socket(0).shutdown(socket.SHUT_RDWR)
        group.settle()
        group.mend()
        assert answered(group, 5) == {0: 5}
        return len(list(Path("/proc/self/fd").iterdir()))

    round_trip()
    before = round_trip()
    assert max(round_trip() for _ in range(20)) <= before


def test_the_next_agent_finds_out_the_order(group: Group) -> None:
    """After a restart of the agent every slot has its own traffic again, though nobody wrote the order down."""
    for slot in (4, 0, 2):
        group.slot_socket(slot)
    group.admit(Traffic({4: 1}))
    next_agents = Group.adopt(group.address, outlived(group), (PARKED, 0, 2, 4), Traffic())
    for slot in next_agents.members:
        next_agents.accept_and_close(slot)
    assert answered(next_agents, 10) == {4: 10}, "the old program rules until the first admit"
    next_agents.admit(Traffic({2: 1}))
    assert answered(next_agents, 10) == {2: 10}
    for slot in (0, 2, 4):
        assert answered(next_agents, 5, Alone(slot)) == {slot: 5}


def test_nobody_is_sent_to_a_parked_socket_that_is_made_anew(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next agent finds a living instance's socket alone: who comes while it parks anew gets to the instance."""
    group.admit(Traffic({0: 1}))
    found = {0: group.slot_socket(0).dup()}
    group.close()
    listen, answers = sockets.listen, list[int]()

    def under_load(address: Address) -> socket.socket:
        made, before = listen(address), sockets.queue_length(found[0])
        for _ in range(10):
            with client(address):
                pass
        answers.append(sockets.queue_length(found[0]) - before)
        return made

    monkeypatch.setattr(sockets, "listen", under_load)
    Group.adopt(group.address, found, (0,), Traffic({0: 1})).close()
    assert answers[0] == 10


@pytest.mark.parametrize("admitted", [(5,), (0, 5), (2, 3)], ids=str)
def test_sockets_leave_and_nobody_is_sent_astray(group: Group, admitted: tuple[int, ...]) -> None:
    """Spare sockets and the parked one are given up one by one: after each, connections reach who was admitted."""
    for slot in range(6):
        group.slot_socket(slot)
    group.admit(Traffic(dict.fromkeys(admitted, 1)))
    for slot in sorted({PARKED, *range(6)} - set(admitted), reverse=True):
        group.leave(slot)
        assert set(answered(group, 30)) <= set(admitted)
    next_agents = Group.adopt(group.address, group.members, admitted, group.traffic)
    assert answered(next_agents, 10, Alone(admitted[-1])) == {admitted[-1]: 10}
    assert set(answered(next_agents, 60)) == set(admitted)
    next_agents.accept_and_close(PARKED)


def test_the_order_is_found_while_an_app_accepts(group: Group) -> None:
    """Finding out the order needs no quiet: queues that are full of connections do not confuse it."""
    for slot in range(6):
        group.slot_socket(slot)
    group.admit(Traffic(dict.fromkeys(range(6), 1)))
    with client(group.address), client(group.address):
        assert group.discover()


def test_who_finds_out_the_order_hangs_up_as_anybody_does(group: Group) -> None:
    """An app reads the end of such a connection, not a reset, which a simple one does not survive."""
    group.slot_socket(0)
    assert group.discover()
    app = group.members[0].dup()
    with app, app.accept()[0] as connection:
        assert connection.recv(1) == b""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1"])  # noqa: S104 - what the test is about
def test_other_kinds_of_address(host: str, address: Address) -> None:
    """Wildcards and dual-stack listeners have weights and slots alone, and so has IPv6 alone."""
    opened = Group.open(Address(host, address.port))
    assert isinstance(opened, Group)
    opened.admit(Traffic({1: 1}))
    opened.slot_socket(0)
    assert opened.discover()
    for slot in opened.members:
        opened.accept_and_close(slot)
    assert answered(opened, 10) == {1: 10}
    assert answered(opened, 10, Alone(0)) == {0: 10}
    opened.close()


@pytest.mark.parametrize("group", ["::1"], indirect=True)
def test_over_ipv6_only_who_chooses_is_apart(group: Group) -> None:
    """Plain users of the same address are spread, whatever port, hop limit or traffic class theirs is."""
    group.admit(Traffic({0: 1, 1: 1}))
    group.slot_socket(2)
    assert set(answered(group, 200)) == {0, 1}
    before = group.queue_length(2)
    for mark in (
        bpf.alone_mark(2)._replace(traffic_class=0),
        bpf.alone_mark(2)._replace(hop_limit=64),
        bpf.Mark(255, 184),
    ):
        for _ in range(5):
            with socket.socket(socket.AF_INET6) as user:
                sockets.set_mark(user, mark)
                user.connect((group.address.host, group.address.port))
    assert group.queue_length(2) == before
    assert (group.accept_and_close(0) + group.accept_and_close(1)) == 15, "none of them counts as a probe"


@pytest.mark.parametrize("group", ["::1"], indirect=True)
def test_over_ipv6_a_slot_is_asked_as_often_as_anybody_likes(group: Group) -> None:
    """Far more often than a port is free again after a connection, and by several at once."""
    group.admit(Traffic({0: 1}))
    group.slot_socket(1)
    assert answered(group, 2_000, Alone(1)) == {1: 2_000}
    with client(group.address, Alone(1)), client(group.address, Alone(1)), client(group.address, Alone(1)):
        assert group.queue_length(1) == 3


@pytest.mark.parametrize("group", ["::1"], indirect=True)
def test_the_first_agent_that_knows_marks_takes_over(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program in force is of one that knew none, and answers by chance whatever is asked."""
    program = bpf.program
    for slot in range(3):
        group.slot_socket(slot)
    with monkeypatch.context() as patch:
        patch.setattr(bpf, "program", lambda *given, own, **more: program(*given, **more) if own else None)
        group.admit(Traffic({0: 1, 1: 1, 2: 1}))
        group.discover()
        assert not group.is_reached_alone
    next_agents = Group.adopt(group.address, outlived(group), (PARKED, 0, 1, 2), Traffic({0: 1, 1: 1, 2: 1}))
    assert next_agents.is_reached_alone
    for slot in next_agents.members:
        next_agents.accept_and_close(slot)
    assert set(answered(next_agents, 60)) == {0, 1, 2}
    for slot in range(3):
        assert answered(next_agents, 5, Alone(slot)) == {slot: 5}
    next_agents.close()


def test_an_ipv6_address_that_has_left_the_host_is_taken_up_all_the_same(address: Address) -> None:
    """It may come back: its sockets are kept, and nobody on another host is asked in the place of them."""
    gone, members = Address("2001:db8::7", address.port), {slot: socket.socket(socket.AF_INET6) for slot in (PARKED, 0)}
    for member in members.values():
        member.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        member.bind((gone.host, gone.port))
        member.listen()
    adopted = Group.adopt(gone, members, (PARKED, 0), Traffic({0: 1}))
    assert not adopted.is_reached_alone
    assert set(adopted.members) == {PARKED, 0}
    adopted.close()


def test_a_host_that_rewrites_marks_is_found_out(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what a connection shows does not arrive nobody is taken for an answer: weights hold, and it is known."""
    monkeypatch.setattr(sockets, "set_mark", lambda _ours, _mark: None)
    opened = Group.open(Address("::1", address.port))
    assert isinstance(opened, Group)
    assert not opened.is_reached_alone
    opened.slot_socket(0)
    opened.admit(Traffic({1: 1}))
    assert not opened.discover()
    opened.accept_and_close(1)
    assert answered(opened, 10) == {1: 10}
    opened.close()


def test_a_slots_socket_blocks_as_an_app_expects(group: Group) -> None:
    """An app that calls accept() on its inherited socket waits there; O_NONBLOCK would be shared with it."""
    assert os.get_blocking(group.slot_socket(0).fileno())
    assert not os.get_inheritable(group.slot_socket(0).fileno())
