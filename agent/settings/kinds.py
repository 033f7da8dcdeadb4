"""What the value of a key can be: how it is spelled in the file, and what it becomes.

A kind takes TOML's own types as they are: `true` is no integer, `"4"` is no integer, `1.0` is none either.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

from agent.model.address import ADDRESS_EXPECTED, parse_address
from agent.model.environment import Share
from agent.model.ids import NAME_EXPECTED, AppName, is_host_name, is_name
from agent.model.units import Bytes, Milliseconds, parse_duration, parse_size
from agent.settings.source import KeyPath, show_value

T = TypeVar("T")
MAX_INTEGER: Final = 1_000_000
"""Far above any sensible number, and small enough for every format that it is stored in."""
MAX_COUNT: Final = 500
"""Instances of a process type on a host: two sides of so many have slots in a swap."""
_PERCENT: Final = re.compile(r"(100|[1-9][0-9]?)%")
_URL_PATH: Final = re.compile(r"/[!-~]*")
_FILE_PATH: Final = re.compile(r"/(?!(?:.*/)?\.\.(?:/|$))[^\n]*")
_HOST_FOLDER: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[^/\n]+)+")  # as the kernel names it
_USER_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?")  # as useradd(8) takes it
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_STATUS: Final = re.compile(r"[1-5][0-9]{2}(-[1-5][0-9]{2})?")


class WrongValueError(Exception):
    """A value is not of its kind; `at` leads from the value to the part of it that is wrong."""

    def __init__(self, expected: str, found: str, at: KeyPath = ()) -> None:
        super().__init__(expected, found)
        self.expected, self.found, self.at = expected, found, at


class Kind(Generic[T]):
    """`convert` gives the setting, or raises ValueError; `expected` then tells what it should have been."""

    def __init__(self, expected: str, convert: Callable[[object], T]) -> None:
        self.expected = expected
        self.convert = convert

    def read(self, value: object) -> T:
        try:
            return self.convert(value)
        except ValueError:
            raise WrongValueError(self.expected, show_value(value)) from None


def integer(least: int, most: int = MAX_INTEGER) -> Kind[int]:
    def convert(value: object) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError
        return value

    return Kind(f"an integer from {least} to {most}", convert)


def text(expected: str, convert: Callable[[str], T]) -> Kind[T]:
    """What `convert` makes of a string; NUL is in none, since neither a command nor a variable can carry it."""

    def convert_string(value: object) -> T:
        if not isinstance(value, str) or "\0" in value:
            raise ValueError
        return convert(value)

    return Kind(expected, convert_string)


def text_where(expected: str, holds: Callable[[str], object]) -> Kind[str]:
    """A string of which `holds` is true, as it is."""

    def convert(value: str) -> str:
        if not holds(value):
            raise ValueError
        return value

    return text(expected, convert)


def duration(least: str = "0s") -> Kind[Milliseconds]:
    least_ms = parse_duration(least)

    def convert(value: str) -> Milliseconds:
        if (milliseconds := parse_duration(value)) < least_ms:
            raise ValueError
        return milliseconds

    return text(f'a duration such as "250ms", "30s", "10m" or "2h"{f", at least {least}" if least_ms else ""}', convert)


def size(least: str, most: str) -> Kind[Bytes]:
    least_bytes, most_bytes = parse_size(least), parse_size(most)

    def convert(value: str) -> Bytes:
        if not least_bytes <= (found := parse_size(value)) <= most_bytes:
            raise ValueError
        return found

    return text(f'a size from "{least}" to "{most}"', convert)


def one_of(*choices: T) -> Kind[T]:
    """One of a few words."""

    def convert(value: object) -> T:
        for choice in choices:
            if choice == value:
                return choice
        raise ValueError

    return Kind(" or ".join(f'"{choice}"' for choice in choices), convert)


def list_of(kind: Kind[T], least: int = 0) -> Kind[tuple[T, ...]]:
    """A list of `kind`, of which the first wrong element is named."""

    def convert(value: object) -> tuple[T, ...]:
        if not isinstance(value, list) or len(value) < least:
            raise ValueError
        return tuple(_element(kind, place, item) for place, item in enumerate(value))

    return Kind(
        f"a list of {kind.expected}" if least == 0 else f"a list of at least {least}, each {kind.expected}", convert
    )


def _element(kind: Kind[T], place: int, value: object) -> T:
    try:
        return kind.read(value)
    except WrongValueError as wrong:
        raise WrongValueError(wrong.expected, wrong.found, (place, *wrong.at)) from None


def _true(value: object) -> bool:
    if value is True:
        return True
    raise ValueError


def _boolean(value: object) -> bool:
    if value is True or value is False:
        return value
    raise ValueError


def _cpu(value: object) -> int:
    """Thousandths of a processor."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 1_024:  # noqa: PLR2004
        raise ValueError
    return round(value * 1_000)


def _share(value: object) -> Share:
    if isinstance(value, str) and (percent := _PERCENT.fullmatch(value)):
        return Share(percent=int(percent[1]))
    return Share(count=POSITIVE.convert(value))


def _tcp_port(value: object) -> int | None:
    return None if value is True else integer(1, 65_535).convert(value)


def _status_range(value: str) -> tuple[int, int]:
    first, _, last = value.partition("-")
    low, high = int(first), int(last or first)
    if not (_STATUS.fullmatch(value) and low <= high):
        raise ValueError
    return low, high


def _ip(value: str) -> str:
    return str(ip_address(value))


def _is_coordinator_url(value: str) -> bool:
    """HTTPS, a host and perhaps a port, and nothing else: no user, no path."""
    url = urlsplit(value)
    bare = value == f"https://{url.netloc}" and "@" not in url.netloc
    return (
        bare and value.isascii() and value.isprintable() and " " not in value and bool(url.hostname) and url.port != 0
    )


BOOLEAN: Final = Kind("true or false", _boolean)
TRUE: Final = Kind("true", _true)
POSITIVE: Final = integer(1)
COUNT: Final = integer(0, MAX_COUNT)
DURATION: Final = duration()
RING: Final = size("16KiB", "64MiB")
STRING: Final = text_where("a string that is not empty", str.strip)
COMMAND: Final = text_where("a command", str.strip)
VALUE: Final = text_where("a string without control characters", lambda value: value and value.isprintable())
HEADER_VALUE: Final = text_where("a string of printable ASCII", _HEADER_VALUE.fullmatch)
NAME: Final = text_where(NAME_EXPECTED, is_name)
HOST_NAME: Final = text_where("a host name of a-z, 0-9, '-' and '.'", is_host_name)
APP_NAME: Final = text(NAME_EXPECTED, lambda value: AppName(NAME.convert(value)))
ADDRESS: Final = text(ADDRESS_EXPECTED, lambda value: str(parse_address(value)))
IP: Final = text('an IP address such as "10.0.0.5"', _ip)
HEADER_NAME: Final = text_where("the name of an HTTP header", _HEADER_NAME.fullmatch)
URL_PATH: Final = text_where('a path such as "/ready"', _URL_PATH.fullmatch)
USER_NAME: Final = text_where("the name of a user of the hosts", _USER_NAME.fullmatch)
FILE_PATH: Final = text_where('an absolute path such as "/var/lib/rollway"', _FILE_PATH.fullmatch)
HOST_FOLDER: Final = text_where(
    'an absolute path of the hosts such as "/var/lib/shop", without "." and ".." and a "/" at its end',
    _HOST_FOLDER.fullmatch,
)
COORDINATOR_URL: Final = text_where('a URL such as "https://rollway.example:7070"', _is_coordinator_url)
SHARE: Final = Kind('a number of hosts from 1, or "1%" to "100%"', _share)
CPU: Final = Kind("processors, from 0.01 to 1024", _cpu)
TCP_PORT: Final = Kind("true, or a port from 1 to 65535", _tcp_port)
STATUS_RANGE: Final = text('a range of HTTP statuses such as "200-399"', _status_range)
