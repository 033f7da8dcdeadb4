"""Blocks of loopback addresses: one for each `up`, so that several run side by side without seeing one another.

Rules: whoever uses a block holds its lock, an abstract unix socket, which the kernel frees with its holder, however
that ends. Hosts have the addresses .1 and up, the coordinator has .254.
"""

import socket
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from typing import Final

from msgspec import Struct

from agent.errors import RefusedError, UsageError

HOSTS_MAX: Final = 250
_LOOPBACK: Final = IPv4Network("127.0.0.0/8")
_SELECTORS: Final = IPv4Network("127.77.0.0/16")
"""Source addresses by which the kernel router reaches one instance alone."""
_PREFIX: Final = 24
_DEFAULTS: Final = tuple(IPv4Network(f"127.{second}.0.0/24") for second in range(10, 20))


class Block(Struct, frozen=True):
    network: IPv4Network

    def host(self, number: int) -> str:
        return str(self.network[number])

    @property
    def coordinator(self) -> str:
        return str(self.network[254])


class Lock(Struct, frozen=True):
    """A block that is ours until `socket` is closed."""

    block: Block
    socket: socket.socket


def parse_block(text: str) -> Block:
    """The block that `--net` names; raises UsageError."""
    try:
        network = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError):
        network = None
    if (
        network is None
        or network.prefixlen != _PREFIX
        or not network.subnet_of(_LOOPBACK)
        or network.overlaps(_SELECTORS)
    ):
        raise UsageError(
            f"{text!r} is no block of addresses for hosts on this machine",
            "Give 256 loopback addresses, such as 127.10.0.0/24; 127.77.0.0/16 is taken by the router.",
        )
    return Block(network)


def lock_block(asked: Block | None, preferred: Block | None) -> Lock:
    """The block that was asked for, else the preferred one if it is free, else the first free; raises RefusedError."""
    defaults = [Block(network) for network in _DEFAULTS]
    candidates: Iterable[Block] = [asked] if asked else [preferred, *defaults] if preferred else defaults
    for block in candidates:
        held = _try(block)
        if held is not None:
            return Lock(block, held)
    if asked is not None:
        raise RefusedError(
            f"another `rollway up` uses the addresses {asked.network}", "Give another --net, or none for a free one."
        )
    raise RefusedError(
        f"all blocks from {_DEFAULTS[0]} to {_DEFAULTS[-1]} are used by other `rollway up`",
        "End one of them, or give a --net of your own.",
    )


def _try(block: Block) -> socket.socket | None:
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        lock.bind(f"\0rollway/net/{block.network.network_address}-{block.network.prefixlen}")
    except OSError:
        lock.close()
        return None
    return lock
