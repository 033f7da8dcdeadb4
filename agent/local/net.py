"""Blocks of loopback addresses: one for each `up`, so that several run side by side without seeing one another.

Rules: whoever uses a block holds its lock, an abstract unix socket, which the kernel frees with its holder, however
that ends. An `up` that was killed may have left agents and instances in its block: one in which somebody listens is not
free, except for its own next `up`. Hosts have the addresses .1 and up, the coordinator has .254.
"""

import socket
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Final

from msgspec import Struct

from agent.errors import RefusedError, UsageError
from agent.linux import inetdiag

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


def lock_block(asked: Block | None, preferred: Block | None, *, runs_here: bool = False) -> Lock:
    """The block that was asked for, else the preferred one if it is free, else the first free; raises RefusedError.

    `runs_here`: what listens in the preferred block was left there by the fleet that now has it again.
    """
    if asked is not None:
        if (held := _try(asked)) is not None:
            return Lock(asked, held)
        raise RefusedError(
            f"another `rollway up` uses the addresses {asked.network}", "Give another --net, or none for a free one."
        )
    defaults = [Block(network) for network in _DEFAULTS]
    for block in [preferred, *defaults] if preferred else defaults:
        if (held := _try(block)) is None:
            continue
        if (runs_here and block == preferred) or not _is_used(block):
            return Lock(block, held)
        held.close()
    raise RefusedError(
        f"all blocks from {_DEFAULTS[0]} to {_DEFAULTS[-1]} are used by other `rollway up`",
        "End one of them, or give a --net of your own.",
    )


def _is_used(block: Block) -> bool:
    """Whether anybody listens at one of its addresses, locked or not."""
    hosts = (row.host for row in inetdiag.dump(inetdiag.ANY_PORT, (inetdiag.LISTEN,)) if ":" not in row.host)
    return any(IPv4Address(host) in block.network for host in hosts)


def _try(block: Block) -> socket.socket | None:
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        lock.bind(f"\0rollway/net/{block.network.network_address}-{block.network.prefixlen}")
    except OSError:
        lock.close()
        return None
    return lock
