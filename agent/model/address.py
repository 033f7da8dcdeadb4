"""Addresses to listen on, `HOST:PORT` and `[HOST]:PORT`: numeric only, so that no name service has a say in a bind."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from msgspec import Struct

ADDRESS_EXPECTED: Final = 'an address such as "0.0.0.0:8080", "127.0.0.1:8080" or "[::]:8080"'
_PORTS: Final = range(1, 65_536)


class Address(Struct, frozen=True):
    """One IP address and port, in its canonical spelling (`str` gives it)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def overlaps(self, other: "Address") -> bool:
        """Whether one connection could mean both: a wildcard covers its family, and `[::]` covers IPv4 as well."""
        if self.port != other.port:
            return False
        if self.host == other.host or "::" in (self.host, other.host):
            return True
        mine, theirs = ip_address(self.host), ip_address(other.host)
        return mine.version == theirs.version and (mine.is_unspecified or theirs.is_unspecified)


def parse_address(text: str) -> Address:
    """The address that `text` spells. Raises ValueError with what was expected."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > len("65535") or int(port) not in _PORTS:
        raise ValueError(ADDRESS_EXPECTED)
    try:
        address = IPv6Address(host[1:-1]) if bracketed else IPv4Address(host)
    except ValueError:
        raise ValueError(ADDRESS_EXPECTED) from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(ADDRESS_EXPECTED)
    return Address(str(address), int(port))
