"""Unix sockets by path: made with their mode before anybody can connect, found again, however long the path is.

Rules: a socket appears under its name only when it listens and has its owner and mode; what had the name before, a dead
process's socket, is replaced in the same moment. A kernel address holds 107 bytes: a longer path is reached through an
open folder.
"""

import grp
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

BACKLOG: Final = 64
_PATH_BYTES_MAX: Final = 107


def group_id(name: str) -> int | None:
    """The number of a group; None where there is none. May ask a directory server: at the start only."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def listen(path: Path, group: int | None) -> socket.socket:
    """Listen at `path`, for our own user and `group`. Raises OSError, and then leaves what was there."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(beside) as address:
            made.bind(address)
        beside.chmod(0o660 if group is not None and _is_given(beside, group) else 0o600)
        made.listen(BACKLOG)
        beside.replace(path)
    except OSError:
        made.close()
        beside.unlink(missing_ok=True)
        raise
    return made


def connect(path: Path, timeout_s: float) -> socket.socket:
    """A connection to whoever listens at `path`; raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(timeout_s)
        with _address(path) as address:
            made.connect(address)
    except OSError:
        made.close()
        raise
    return made


def _is_given(path: Path, group: int) -> bool:
    """Whether the socket could be given to the group: who is not root gives to groups of its own only."""
    try:
        os.chown(path, -1, group)
    except PermissionError:
        return False
    return True


@contextmanager
def _address(path: Path) -> Iterator[str]:
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
