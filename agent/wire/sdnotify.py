"""The datagrams of sd_notify(3): what a process tells its supervisor, and what the agent tells systemd.

Rules: lines of KEY=value; keys that are not known are passed over, as the protocol demands; a value that is not what
its key needs is as if it had not been sent. Times are microseconds here because the protocol says so. Not handled
here: the file descriptors and credentials that travel beside the bytes.
"""

from typing import Final, Literal

import msgspec
from msgspec import Struct

DATAGRAM_BYTES_MAX: Final = 4096
NUMBER_MAX: Final = 2**64 - 1
FD_NAME_CHARACTERS_MAX: Final = 255

Watchdog = Literal["ping", "trigger"]


class Notice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One datagram. None and False: not said. `ready` can only be said, never taken back."""

    ready: bool = False
    reloading: bool = False
    stopping: bool = False
    status: str | None = None
    watchdog: Watchdog | None = None
    watchdog_us: int | None = None
    extend_timeout_us: int | None = None
    monotonic_us: int | None = None
    main_pid: int | None = None
    """0 where what was said is no number: who sends it has to be told that it counts for nothing."""
    errno: int | None = None
    exit_status: int | None = None
    fd_store: bool = False
    fd_store_remove: bool = False
    fd_name: str | None = None
    fd_poll: bool = True
    barrier: bool = False


_FLAGS: Final = {
    "ready": "READY",
    "reloading": "RELOADING",
    "stopping": "STOPPING",
    "fd_store": "FDSTORE",
    "fd_store_remove": "FDSTOREREMOVE",
    "barrier": "BARRIER",
}
_NUMBERS: Final = {
    "watchdog_us": "WATCHDOG_USEC",
    "extend_timeout_us": "EXTEND_TIMEOUT_USEC",
    "monotonic_us": "MONOTONIC_USEC",
    "main_pid": "MAINPID",
    "errno": "ERRNO",
    "exit_status": "EXIT_STATUS",
}
_FLAG_OF: Final = {key: field for field, key in _FLAGS.items()}
_NUMBER_OF: Final = {key: field for field, key in _NUMBERS.items()}
_WATCHDOG: Final[dict[str, Watchdog]] = {"1": "ping", "trigger": "trigger"}


def parse(datagram: bytes) -> Notice:
    """Read a datagram from anybody; of a key that is said twice the last counts. Beyond the bound nothing is read."""
    said: dict[str, bool | int | str] = {}
    for line in datagram[:DATAGRAM_BYTES_MAX].decode(errors="replace").split("\n"):
        key, _, value = line.partition("=")
        if key in _FLAG_OF and value == "1":
            said[_FLAG_OF[key]] = True
        elif key in _NUMBER_OF and (number := _number(value)) is not None:
            said[_NUMBER_OF[key]] = number
        elif key == "MAINPID":
            said["main_pid"] = 0
        elif key == "STATUS":
            said["status"] = value
        elif key == "WATCHDOG" and value in _WATCHDOG:
            said["watchdog"] = _WATCHDOG[value]
        elif key == "FDPOLL" and value == "0":
            said["fd_poll"] = False
        elif key == "FDNAME" and is_fd_name(value):
            said["fd_name"] = value
    return msgspec.convert(said, Notice)


def build(notice: Notice) -> bytes:
    """Give the datagram that says this; a status is one line."""
    lines = [f"{key}=1" for field, key in _FLAGS.items() if getattr(notice, field)]
    for field, key in _NUMBERS.items():
        if (number := getattr(notice, field)) is not None:
            lines.append(f"{key}={number}")
    if notice.watchdog is not None:
        lines.append("WATCHDOG=" + ("1" if notice.watchdog == "ping" else "trigger"))
    if notice.status is not None:
        lines.append("STATUS=" + notice.status.replace("\n", " "))
    if notice.fd_name is not None:
        lines.append(f"FDNAME={notice.fd_name}")
    if not notice.fd_poll:
        lines.append("FDPOLL=0")
    return "\n".join(lines).encode()


def build_store(name: str) -> bytes:
    """As `build` gives it for a descriptor that is to be kept, whatever becomes of it: hundreds are at once."""
    return f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0".encode()


def build_remove(name: str) -> bytes:
    """The same for those that are not to be kept any more."""
    return f"FDSTOREREMOVE=1\nFDNAME={name}".encode()


def is_fd_name(name: str) -> bool:
    """Whether systemd keeps an fd under this name: printable ASCII without a colon, at most 255 characters."""
    return 0 < len(name) <= FD_NAME_CHARACTERS_MAX and name.isascii() and name.isprintable() and ":" not in name


def _number(value: str) -> int | None:
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(NUMBER_MAX))):
        return None
    number = int(value)
    return number if number <= NUMBER_MAX else None
