"""Which instance gets new connections: of one app and environment, a group of sockets per address and type.

Rules: a group stays open as long as a slot of its type is in use or its release listens there, so that no connection is
refused while instances come and go; a slot keeps its socket until it is forgotten. An address where somebody else
listens is refused, with who. A type that binds its own port has no group; whether it is admitted is known all the same.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup
from msgspec import Struct, field

from agent.decisions.swap.state import Route
from agent.errors import RefusedError
from agent.host import adopt
from agent.host.assignments import AppKey
from agent.host.ownports import OwnPorts
from agent.linux import sockets
from agent.linux.fdstore import FdStore, Inherited
from agent.linux.procfs import Owner, is_shortage
from agent.linux.sockets import PortInUse, port_in_use
from agent.model.address import Address, parse_address
from agent.model.ids import ProcessName
from agent.model.process import AppSpec, HttpCheck, ProcessType
from agent.supervisor.launchable import Listener, Target
from agent.supervisor.records import Record
from agent.traffic import parked
from agent.traffic.reuseport import PARKED, Group, Traffic, is_ipv6_alone, reached_at
from agent.wire.bpf import alone_address, alone_mark

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Slot(Struct, frozen=True, kw_only=True):
    """How an instance is reached: sockets for it to inherit, or the port for it to bind; and where probes find it."""

    listeners: tuple[Listener, ...] = ()
    port: int | None = None
    target: Target | None = None


class _Open(Struct, frozen=True):
    """An open group, whose parked socket is answered by a task of its own: as long as that lives, only it closes it."""

    group: Group
    names: dict[int, str] = field(default_factory=dict)
    """Under which the store keeps the socket of each slot, and the parked one."""
    life: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    closed: anyio.Event = field(default_factory=anyio.Event)

    async def run(self, *, http: bool) -> None:
        with self.life:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._settle)
                await parked.answer(self.group.members[PARKED], http=http)
        # Not where the whole host is cancelled: its actors may be in the middle of a step that needs the group.
        self.group.close()
        self.closed.set()

    async def _settle(self) -> None:
        """At once, and not only at the instance's end: one that drains may serve for long after its shutdown()."""
        while True:
            await anyio.wait_readable(self.group.ends)
            self.group.settle()

    async def close(self) -> None:
        """Nobody may close a socket that the loop still watches: its number could be another's by then."""
        self.life.cancel()
        await self.closed.wait()


class _Type(Struct, kw_only=True):
    """One listening type. `bound` says on which addresses the instance in a slot listens."""

    groups: dict[Address, _Open] = field(default_factory=dict)
    bound: dict[int, tuple[Address, ...]] = field(default_factory=dict)
    admitted: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()
    has_served: bool = False


class Routes:
    def __init__(self, key: AppKey, tasks: TaskGroup, store: FdStore, own_ports: OwnPorts) -> None:
        self._key = key
        self._own_ports = own_ports
        self._tasks = tasks
        self._store = store
        self._types: dict[ProcessName, _Type] = {}

    async def adopt(self, inherited: Inherited, records: list[Record], spec: AppSpec | None) -> None:
        """Take over every group of an earlier agent, as it stood; who was ready goes on getting connections."""
        lefts = list(adopt.from_store(inherited, self._key))
        lefts += await to_thread.run_sync(lambda: list(adopt.from_instances(records, lefts)))
        types = {process.name: process for process in (spec.processes if spec else ())}
        for record in records:
            if (kept := record.instance) is not None and kept.addresses:
                types[kept.type.name] = kept.type
                held = self._types.setdefault(kept.type.name, _Type())
                held.bound[record.key.slot] = bound = tuple(map(parse_address, kept.addresses))
                if kept.type.bind == "port":
                    with contextlib.suppress(RefusedError):  # it runs, whoever has it by now
                        self._own_ports.take(bound[0], self._key, kept.type.name, record.key.slot)
                if kept.machine.state == "ready":
                    held.admitted, held.has_served = (*held.admitted, record.key.slot), True
        for (name, address), found in _by_group(lefts).items():
            held = self._types.setdefault(name, _Type())
            here = [slot for slot in held.admitted if address in held.bound.get(slot, ())]
            members = {left.slot: left.socket for left in found}
            traffic = Traffic(dict.fromkeys(here, 1))
            try:
                group = await to_thread.run_sync(Group.adopt, address, members, list(members), traffic)
            except OSError as error:
                if is_shortage(error):
                    raise
                # The address has left this host: whoever wants a socket there says that it is lost.
                await to_thread.run_sync(_give_up, self._store, found)
                continue
            _tell_reach(group)
            opened = _Open(group, {left.slot: left.name for left in found if left.name})
            held.groups[address] = opened
            await self._keep(opened, name, address)
            self._tasks.start_soon(partial(opened.run, http=name in types and _speaks_http(types[name])))

    async def _keep(self, opened: _Open, process: ProcessName, address: Address) -> None:
        """Have the store keep the sockets that it does not have yet."""
        new: dict[str, int] = {}
        for slot, member in opened.group.members.items():
            if slot not in opened.names:
                name = adopt.name_of(self._key, process, address, len(opened.names), slot)
                opened.names[slot] = name
                new[name] = member.fileno()

        def put() -> None:
            for name, fd in new.items():
                self._store.put(name, fd)

        if new:
            await to_thread.run_sync(put)

    async def open(self, process: ProcessType, slots: Collection[int], addresses: tuple[Address, ...]) -> None:
        """Make the sockets of slots that are about to be used, many at once. Raises RefusedError, as `slot` does."""
        if process.bind == "port":
            return
        held = self._types.setdefault(process.name, _Type())
        for address in addresses:
            with _told(address):
                if address not in held.groups:
                    held.groups[address] = await self._open(address, process)
                opened = held.groups[address]
                if not opened.names.keys() >= {PARKED, *slots}:
                    opened.group.open_slots(slots)
                    await self._keep(opened, process.name, address)

    async def slot(self, process: ProcessType, slot: int, addresses: tuple[Address, ...]) -> Slot:
        """The place of the instance in `slot`. Raises RefusedError naming who listens on an address already."""
        if not addresses:
            return Slot()
        held = self._types.setdefault(process.name, _Type())
        if process.bind == "port":
            if slot not in held.bound:
                await self._take(addresses[0], process.name, slot)
            held.bound[slot] = addresses
            reached = reached_at(addresses[0])
            return Slot(port=reached.port, target=Target(reached.host, reached.port))
        await self.open(process, (slot,), addresses)
        held.bound[slot] = addresses
        return Slot(
            listeners=tuple(self._listener(held, held.groups[address].group, slot) for address in addresses),
            port=addresses[0].port,
            target=_target(held.groups[addresses[0]].group, slot),
        )

    def route(self, route: Route) -> None:
        """Do what `route` says on every address of its type."""
        held = self._types.get(route.process)
        if held is None:
            return
        held.admitted, held.waiting = route.admitted, route.waiting
        held.has_served |= bool(route.admitted)
        for address, opened in held.groups.items():
            here = [slot for slot in route.admitted if address in held.bound.get(slot, ())]
            waiting = next((slot for slot in route.waiting if address in held.bound.get(slot, ())), None)
            opened.group.admit(Traffic(dict.fromkeys(here, 1), waiting))

    def mend(self, process: ProcessName) -> tuple[int, ...]:
        """After an instance's end: listen again on the sockets that it has shut down; which slots these were."""
        held = self._types.get(process)
        return tuple(slot for opened in held.groups.values() for slot in opened.group.mend()) if held else ()

    def forget(self, process: ProcessName, slot: int) -> None:
        held = self._types.get(process)
        if held is not None:
            held.bound.pop(slot, None)
            self._own_ports.give_back(self._key, process, slot)

    async def keep_only(self, wanted: Iterable[tuple[ProcessName, Address]]) -> None:
        """Close every group that no slot uses and that is not among `wanted`."""
        kept, given_up = set(wanted), list[str]()
        for name, held in list(self._types.items()):
            for address in [one for one in held.groups if (name, one) not in kept]:
                if not any(address in addresses for addresses in held.bound.values()):
                    await held.groups[address].close()
                    given_up += held.groups[address].names.values()
                    del held.groups[address]  # not before: cut short here, it is still there to be closed at the end
            if not held.groups and not held.bound:
                del self._types[name]
        for name_in_store in given_up:
            await to_thread.run_sync(self._store.drop, name_in_store)

    def leave_spares(self) -> None:
        """Give up, before the service manager does so in an order of its own, every socket that no instance holds.

        For an agent that is stopped for good: its store is emptied after it, and the kernel would renumber the groups
        under the program. Waits for the manager.
        """
        for held in self._types.values():
            for opened in held.groups.values():
                for slot in sorted(opened.names.keys() - held.bound.keys(), reverse=True):
                    self._store.drop(opened.names[slot])
                    self._store.barrier()
                    opened.group.leave(slot)

    def close(self) -> None:
        """Close every group, whoever uses it, once no task of the host is left; so does the end of the process."""
        for held in self._types.values():
            for opened in held.groups.values():
                opened.group.close()
        self._types.clear()

    def admitted(self) -> dict[ProcessName, tuple[int, ...]]:
        """Of each listening type that was ever launched here, who gets connections."""
        return {name: held.admitted for name, held in self._types.items()}

    def has_served(self, process: ProcessName) -> bool:
        """Whether an instance of it has been admitted since its first launch here."""
        return process in self._types and self._types[process].has_served

    async def strangers(self) -> list[tuple[Address, Owner]]:
        """Who else listens on an address of ours."""
        ours = [
            (address, opened.group.inodes())
            for held in self._types.values()
            for address, opened in held.groups.items()
            if not opened.closed.is_set()
        ]

        def look() -> list[tuple[Address, Owner]]:
            return [
                (address, owner)
                for address, inodes in ours
                for owner in sockets.listeners(address, besides=inodes).values()
            ]

        return await to_thread.run_sync(look)

    async def _take(self, address: Address, process: ProcessName, slot: int) -> None:
        """Have the address for who binds it itself. Raises RefusedError."""
        self._own_ports.take(address, self._key, process, slot)
        try:
            await to_thread.run_sync(refuse_taken, address)
        except RefusedError:
            self._own_ports.give_back(self._key, process, slot)
            raise

    async def _open(self, address: Address, process: ProcessType) -> _Open:
        self._own_ports.refuse(address, self._key, process.name)
        group = await to_thread.run_sync(Group.open, address)
        if isinstance(group, PortInUse):
            raise _taken(group)
        _tell_reach(group)
        opened = _Open(group)
        self._tasks.start_soon(partial(opened.run, http=_speaks_http(process)))
        return opened

    @staticmethod
    def _listener(held: _Type, group: Group, slot: int) -> Listener:
        def accept_and_close() -> int:
            """Leave the queue alone when the slot's next process will find it."""
            return 0 if slot in held.waiting else group.accept_and_close(slot)

        queue_length: Callable[[], int] = lambda: group.queue_length(slot)  # noqa: E731 - named for the reader
        return Listener(group.slot_socket(slot), queue_length, accept_and_close)


def _speaks_http(process: ProcessType) -> bool:
    probes = (process.probes.startup, process.probes.readiness, process.probes.liveness)
    return any(probe is not None and isinstance(probe.check, HttpCheck) and not probe.check.tls for probe in probes)


def _by_group(lefts: Iterable[adopt.Left]) -> dict[tuple[ProcessName, Address], list[adopt.Left]]:
    groups: dict[tuple[ProcessName, Address], list[adopt.Left]] = {}
    for left in adopt.parked_first(lefts):
        groups.setdefault((left.process, left.address), []).append(left)
    return groups


def _give_up(store: FdStore, lefts: Iterable[adopt.Left]) -> None:
    for left in lefts:
        left.socket.close()
        if left.name:
            store.drop(left.name)


def refuse_taken(address: Address) -> None:
    """Raise RefusedError naming who listens on `address`. May walk /proc: call it in a thread."""
    with _told(address):
        found = port_in_use(address)
    if found is not None:
        raise _taken(found)


@contextlib.contextmanager
def _told(address: Address) -> Iterator[None]:
    """Why the kernel refuses `address`, in words."""
    try:
        yield
    except OSError as error:
        raise RefusedError(
            f"cannot listen on {address}: {error.strerror}", "Choose an address of this host and a port it may use."
        ) from error


def _taken(found: PortInUse) -> RefusedError:
    if found.pid == os.getpid():
        return RefusedError(
            f"cannot listen on {found.address}: another app of this host listens there",
            "Choose another address: `listen` in rollway.toml, or [listen] in the environment's settings.",
        )
    who = f"pid {found.pid} ({found.command})" if found.pid else "a process that this user cannot see"
    return RefusedError(
        f"cannot listen on {found.address}: {who} listens there",
        "Stop that process, or choose another address.",
    )


def _tell_reach(group: Group) -> None:
    if not group.is_reached_alone:
        said = "probes ask any instance: this host rewrites hop limit or traffic class"
        log.warning(said, address=str(group.address))


def _target(group: Group, slot: int) -> Target:
    """Where only the instance in `slot` answers; any, where the host does not let a connection choose."""
    reached = reached_at(group.address)
    if not group.is_reached_alone:
        return Target(reached.host, reached.port)
    if is_ipv6_alone(group.address):
        return Target(reached.host, reached.port, reached.host, alone_mark(slot))
    return Target(reached.host, reached.port, alone_address(slot))
