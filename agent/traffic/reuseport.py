"""The kernel as router: the reuseport group of one listen address of one process type, and who in it gets connections.

The first socket is parked: the agent's own, which nobody else accepts from. Each slot has one more, made at the end of
the group and never closed while the group lives, for the kernel gives a leaver's place to the last. So that an app
which calls shutdown() on its inherited listener, as some do to end, moves nobody who gets traffic, the last is a guard:
a socket of our own that nobody is sent to. It takes the leaver's place, and the next one is made (`settle`).

Rules: every method may be called twice. The order of the sockets in the kernel cannot be read: it is kept here and,
where it may have changed (several apps called shutdown() at once; the agent was restarted), found out by `discover`.
Not handled here: who is ready, how long a drain lasts, what the parked socket answers (`parked`).
"""

import contextlib
import itertools
import select
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from agent.errors import invariant
from agent.linux import reuseport, sockets
from agent.model.address import Address
from agent.wire import bpf

PARKED: Final = -1
"""Stands for the parked socket where slots are named."""
_TRIES: Final = 3
_ANSWERED_WITHIN_MS: Final = 50
# Each socket shows its number by the segment size of its connections. 16 apart, for TCP timestamps may take 12.
_SEGMENT_BYTES: Final = 8_000
_SEGMENT_STEP: Final = 16
_TIMESTAMP_BYTES: Final = 12
_SEND_SEGMENT: Final = struct.Struct("=16xI")  # tcpi_snd_mss


class Traffic(Struct, frozen=True):
    """Who gets new connections: weight by slot; with none, the slot `waiting` whose process is starting, or parked."""

    weights: Mapping[int, int] = {}
    waiting: int | None = None
    sticky: bool = False


class Group:
    """The sockets of one address. Make it with `open` or `adopt`."""

    def __init__(self, address: Address, members: Mapping[int, socket.socket]) -> None:
        invariant(bool(members), "a group has a socket")
        self.address = address
        self._own = address.host if is_ipv6_alone(address) else None
        self.is_reached_alone = True
        """Whether a connection can choose its socket, by the last look: not where a host rewrites what packets show."""
        self._members = dict(members)
        self._order = [slot for slot in sorted(members) if sockets.is_listening(members[slot])]
        self._traffic = Traffic()
        self._in_force: tuple[list[int], Traffic] | None = None
        """Of what the program speaks that the kernel has from us."""
        self._guards = itertools.count(PARKED - 1, -1)
        self._ended: set[int] = set()
        """Sockets by number, of which the kernel has told that they do not listen any more."""
        self._watch = select.epoll()
        for member in members.values():
            self._watch_for_end(member)

    @classmethod
    def open(cls, address: Address) -> "Group | sockets.PortInUse":
        """Take an address that nobody uses, with the parked socket alone; refuse it otherwise, naming who does."""
        if (taken := sockets.port_in_use(address)) is not None:
            return taken
        group = cls(address, {PARKED: sockets.listen(address)})
        group._guard()
        group._attach()
        if group._own is not None:
            group.discover()
        return group

    @classmethod
    def adopt(
        cls, address: Address, members: Mapping[int, socket.socket], order: Sequence[int], traffic: Traffic
    ) -> "Group":
        """Take over the sockets of an earlier agent, which had made them in this order and admitted this traffic.

        Its program is in force all the while. Where it lost sockets, the parked one among them, it is replaced by one
        for those that are left. Raises OSError where there can be no parked socket; the members stay the caller's.
        """
        group = cls(address, members)
        group._order = [slot for slot in order if sockets.is_listening(members[slot])]
        group._traffic = traffic
        group._order = group._kernel_order()
        if not group.is_reached_alone:  # the program may be of an agent that knew no marks yet
            group._attach()
            group.discover()
        if PARKED not in members:
            group._park_anew()
        if not group.mend():
            group._guard()
        return group

    def _park_anew(self) -> None:
        """The program in force may send to the very place that the new socket gets: another one comes before it."""
        if self._order:
            self._attach()
        try:
            self._add(PARKED)
        except OSError:
            self._watch.close()
            raise
        self._attach()
        self.discover()

    @property
    def members(self) -> Mapping[int, socket.socket]:
        """The sockets by slot, and the parked one, for whoever must keep them alive."""
        return {slot: member for slot, member in self._members.items() if slot >= PARKED}

    @property
    def ends(self) -> int:
        """A descriptor that is readable when an app has ended listening by shutdown(): then `settle`."""
        return self._watch.fileno()

    @property
    def traffic(self) -> Traffic:
        return self._traffic

    def slot_socket(self, slot: int) -> socket.socket:
        """Give the slot's socket, listening; made if it is the slot's first time. Nobody is sent to it by that."""
        self.open_slots((slot,))
        return self._members[slot]

    def open_slots(self, slots: Iterable[int]) -> None:
        """Make the sockets that slots do not have yet: of hundreds with one program, for that is as long as they."""
        new = [slot for slot in slots if slot not in self._members]
        if not new:
            return
        try:
            for slot in new:
                invariant(0 <= slot < bpf.SLOTS_MAX, f"slot {slot}")
                self._add(slot)
        finally:
            self._guard()
            self._attach()

    def admit(self, traffic: Traffic) -> None:
        """Direct every new connection so from now on: one system call. Connections that wait in a queue stay there."""
        self.open_slots((*traffic.weights, *(() if traffic.waiting is None else (traffic.waiting,))))
        self._traffic = traffic
        if self._in_force != (self._order, traffic):
            self._attach()

    def queue_length(self, slot: int) -> int:
        """How many connections the slot's process has not accepted yet."""
        return sockets.queue_length(self._members[slot])

    def accept_and_close(self, slot: int) -> int:
        """Close what waits in the queue of a slot whose process is gone; how many that were, without our own probes."""
        closed = 0
        while (found := sockets.accept_waiting(self._members[slot])) is not None:
            connection, source = found
            closed += not self._is_chosen(connection, source)
            connection.close()
        return closed

    def _is_chosen(self, connection: socket.socket, source: str) -> bool:
        if self._own is None:
            return bpf.is_chosen(source)
        return source == self._own and bpf.is_mark(sockets.mark_of(connection))

    def settle(self) -> tuple[int, ...]:
        """Send nobody to sockets that an app has ended by shutdown(), and everybody else where they are now; which.

        They do not listen again before `mend`: an app that waits in accept() would not see that it is to end.
        """
        gone = tuple(slot for slot in self._closed() if slot in self._order)
        for slot in gone:
            self._take_out(slot)
        if gone and self._order:
            self._guard()
            self._attach()
        if len(gone) > 1:
            self.discover()  # in which order they have left is not known
        return gone

    def mend(self) -> tuple[int, ...]:
        """Listen again where an app has ended that by shutdown(); give these slots. For each instance's end."""
        self.settle()
        closed = tuple(slot for slot in self._closed() if slot not in self._order)
        for slot in closed:
            self._members[slot].listen(sockets.BACKLOG)
            self._watch_again(slot)
            self._order.append(slot)
        if closed:
            self._guard()
            self._attach()
        return closed

    def _closed(self) -> list[int]:
        """Which slots do not listen, without asking hundreds that do."""
        self._ended.update(fd for fd, _ in self._watch.poll(0, len(self._members)))
        if not self._ended:
            return []
        told = [slot for slot in sorted(self._members) if self._members[slot].fileno() in self._ended]
        for slot in told:
            if sockets.is_listening(self._members[slot]):
                self._watch_again(slot)
        return [slot for slot in told if self._members[slot].fileno() in self._ended]

    def discover(self) -> bool:
        """Find out the kernel's order with real connections, and correct the program; whether all is certain now.

        Each socket sees one connection that is closed at once.
        """
        for _ in range(_TRIES):
            found = self._kernel_order()
            if found != self._order:
                self._order = found
                self._attach()
            elif self.is_reached_alone:
                return True
        return False

    def leave(self, slot: int) -> None:
        """Close a socket that gets no traffic, or the parked one, and keep everybody else's: for good, no way back.

        The kernel gives the leaver's place to the last of the group. Where the last gets traffic it gets none for as
        long as that takes, if there is another to take it.
        """
        for guard in [one for one in reversed(self._order) if one < PARKED]:
            self._leave(guard)
        self._leave(slot)

    def _leave(self, slot: int) -> None:
        member, admitted, last = self._members[slot], self._traffic, self._order[-1]
        self._watch.unregister(member)
        if slot not in self._order:
            self._members.pop(slot).close()
            return
        if last != slot and last in admitted.weights and len(admitted.weights) > 1:
            self._traffic = Traffic({one: weight for one, weight in admitted.weights.items() if one != last})
            self._attach()
            self._traffic = admitted
        self._members.pop(slot).close()
        self._take_out(slot)
        if self._order:
            self._attach()

    def _take_out(self, slot: int) -> None:
        """As the kernel does: the last gets the leaver's place."""
        place, last = self._order.index(slot), self._order.pop()
        if last != slot:
            self._order[place] = last

    def inodes(self) -> set[int]:
        """By which the kernel names the group's own sockets; whoever else listens there gets connections too."""
        return {sockets.inode(member) for member in self._members.values()}

    def close(self) -> None:
        """End the group: what waits in a queue is reset."""
        self._watch.close()
        for member in self._members.values():
            member.close()

    def _add(self, slot: int) -> None:
        self._members[slot] = sockets.listen(self.address)
        self._watch_for_end(self._members[slot])
        self._order.append(slot)

    def _watch_for_end(self, member: socket.socket) -> None:
        self._ended.discard(member.fileno())  # told of another one, which had this number before
        self._watch.register(member, select.EPOLLONESHOT)  # a hang-up alone, told once

    def _watch_again(self, slot: int) -> None:
        self._ended.discard(self._members[slot].fileno())
        self._watch.modify(self._members[slot], select.EPOLLONESHOT)

    def _guard(self) -> None:
        """Have a guard at the end, and as few others as may be without moving anybody who gets traffic.

        A program in force stays right, but for the slots that got no traffic.
        """
        while len(self._order) > 1 and self._order[-1] < PARKED and self._order[-2] < PARKED:
            self._leave(self._order[-1])
        served = {*self._traffic.weights, self._traffic.waiting, PARKED}
        others = [one for one in self._order[:-1] if one < PARKED]
        while others and self._order[-1] > PARKED and self._order[-1] not in served:
            self._leave(others.pop(0))
        if self._order[-1] >= PARKED:
            with contextlib.suppress(OSError):  # no descriptor left: an app that shuts down is then felt for a moment
                self._add(next(self._guards))

    def _attach(self) -> None:
        index = {slot: place for place, slot in enumerate(self._order)}
        traffic = self._traffic
        built = bpf.program(
            [bpf.Share(index[slot], weight) for slot, weight in sorted(traffic.weights.items()) if slot in index],
            count=len(self._order),
            parked=index.get(PARKED, 0),  # 0: nobody can be sent away any more
            otherwise=None if traffic.waiting is None else index.get(traffic.waiting),
            alone={slot: place for slot, place in index.items() if slot > PARKED},
            sticky=traffic.sticky,
            own=self._own,
        )
        self._in_force = None
        reuseport.attach(self._members[self._order[0]], bpf.encode(built))
        self._in_force = [*self._order], traffic

    def _kernel_order(self) -> list[int]:
        """Ask each index which socket it is; where no answer comes what is left over is taken in the known order."""
        target = reached_at(self.address)
        known = list(self._order)
        for mark, slot in enumerate(known):
            _mark(self._members[slot], _SEGMENT_BYTES + _SEGMENT_STEP * mark)
        try:
            answers = [_answered_by(target, index) for index in range(len(known))]
        finally:
            for slot in known:
                _mark(self._members[slot], 0)
        if self._own is not None:
            # Who does not choose gets anybody: then no answer says anything.
            self.is_reached_alone = None not in answers and len({*answers}) == len(known)
        return _each_once(answers, known) if self.is_reached_alone else known


def reached_at(address: Address) -> Address:
    """Where a connection goes that has chosen its socket."""
    if address.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return Address("127.0.0.1", address.port)
    return address


def is_ipv6_alone(address: Address) -> bool:
    """Whether it cannot be reached over IPv4: there a connection chooses its socket by a mark."""
    return ":" in reached_at(address).host


def _each_once(answers: Sequence[int | None], known: Sequence[int]) -> list[int]:
    """Turn marks by index into slots by index; each slot has one place, and the doubtful keep their order."""
    order: list[int | None] = []
    for mark in answers:
        slot = known[mark] if mark is not None and mark < len(known) else None
        order.append(None if slot in order else slot)
    left = iter([slot for slot in known if slot not in order])
    return [next(left) if slot is None else slot for slot in order]


def _answered_by(target: Address, index: int) -> int | None:
    """Connect to one index and read the mark of the socket that answered; None where none does in time."""
    by_mark = is_ipv6_alone(target)
    family = socket.AF_INET6 if by_mark else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        if by_mark:
            sockets.set_mark(probe, bpf.index_mark(index))
        try:
            probe.bind((target.host if by_mark else bpf.index_address(index), 0))
        except OSError:
            return None  # an address of IPv6 that has left this host
        probe.connect_ex((target.host, target.port))
        poll = select.poll()
        poll.register(probe, select.POLLOUT)
        if not poll.poll(_ANSWERED_WITHIN_MS) or probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return None
        (segment,) = _SEND_SEGMENT.unpack(probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SEND_SEGMENT.size))
    mark = (int(segment) + _TIMESTAMP_BYTES - _SEGMENT_BYTES) // _SEGMENT_STEP
    return mark if mark >= 0 else None


def _mark(member: socket.socket, segment_bytes: int) -> None:
    member.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment_bytes)
