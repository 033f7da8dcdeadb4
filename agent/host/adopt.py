"""The listening sockets that an earlier agent left: out of the FD store, or out of the living instances themselves.

A socket's name in the store tells type, address, its place in the order in which its group was made, and slot. Where
the store is empty (the service was stopped and started again), each instance that lives still holds its own. Blocking:
walks of /proc, so call these in a thread.
"""

import os
import socket
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from agent.host.assignments import AppKey
from agent.linux import inetdiag, pidfd, procfs
from agent.linux.fdstore import Inherited
from agent.linux.killtree import members
from agent.model.address import Address, parse_address
from agent.model.ids import ProcessName
from agent.supervisor.records import Record
from agent.traffic.reuseport import PARKED

_LISTEN: Final = "listen"


class Left(Struct, frozen=True, kw_only=True):
    """One socket: whose, where, as the how manieth of its group it was made; `slot` may be PARKED."""

    process: ProcessName
    address: Address
    place: int
    slot: int
    socket: socket.socket
    name: str = ""
    """Under which the store has it; empty: it has not."""


def name_of(key: AppKey, process: ProcessName, address: Address, place: int, slot: int) -> str:
    """How the store names it: a colon would end the name."""
    return f"{key}.{process}/{_LISTEN}/{str(address).replace(':', '_')}/{place}/{slot}"


def from_store(inherited: Inherited, key: AppKey) -> Iterator[Left]:
    """What the store kept for this app and environment."""
    for name in inherited.names():
        read = _read(name, key)
        fd = inherited.take(name) if read is not None else None
        if read is not None and fd is not None:
            process, address, place, slot = read
            try:
                held = socket.socket(fileno=fd)
            except OSError:  # no socket: as if it had not come back
                os.close(fd)
                continue
            yield Left(process=process, address=address, place=place, slot=slot, socket=held, name=name)


def from_instances(records: Iterable[Record], known: Iterable[Left]) -> Iterator[Left]:
    """The sockets of living instances that are not known already."""
    have = {(left.process, left.address, left.slot) for left in known}
    for place, record in enumerate(records):
        texts = record.instance.addresses if record.instance is not None else ()
        for address in map(parse_address, texts):
            where = (record.key.process, address, record.key.slot)
            held = _held_by(record, address) if where not in have else None
            if held is not None:
                yield Left(process=record.key.process, address=address, place=place, slot=record.key.slot, socket=held)


def _read(name: str, key: AppKey) -> tuple[ProcessName, Address, int, int] | None:
    words = name.split("/")
    if len(words) != 5 or words[1] != _LISTEN or not words[0].startswith(f"{key}."):  # noqa: PLR2004 - its parts
        return None
    process = words[0].removeprefix(f"{key}.")
    return ProcessName(process), parse_address(words[2].replace("_", ":")), int(words[3]), int(words[4])


def _held_by(record: Record, address: Address) -> socket.socket | None:
    """A copy of the listening socket on `address` that a process of this instance holds."""
    try:
        rows = inetdiag.dump(address.port, (inetdiag.LISTEN,))
    except OSError:
        return None  # whoever wants the socket says that it is lost
    listening = {row.inode for row in rows if Address(row.host, row.port) == address}
    for member in members(record.tree):
        for fd, inode in procfs.sockets(member.pid):
            if inode in listening and (copied := _copied(member, fd)) is not None:
                return copied
    return None


def _copied(member: procfs.Process, fd: int) -> socket.socket | None:
    handle = pidfd.open_pidfd(member.pid, member.start_time)
    if handle is None:
        return None
    try:
        return socket.socket(fileno=pidfd.copy_fd(handle, fd))
    except OSError:
        return None  # it is ending, or may not be looked into
    finally:
        os.close(handle)


def parked_first(lefts: Iterable[Left]) -> list[Left]:
    """In the order in which the group was made; a parked socket is always its first."""
    return sorted(lefts, key=lambda left: (left.slot != PARKED, left.place))
