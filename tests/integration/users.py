"""A machine with the user of apps, as far as this very process can see for a while."""

import ctypes
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from agent.linux import users

T = TypeVar("T")
UID = 64_321
_PASSWD = Path("/etc/passwd")
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


def with_user_of_apps(called: Callable[[], T]) -> T:
    """What it gives in a thread whose machine has `rollway-app`: its mounts, and so its /etc/passwd, are its own."""
    return _in_thread(called, f"{users.APPS}:x:{UID}:{UID}::/nonexistent:/usr/sbin/nologin\n")


def without_user_of_apps(called: Callable[[], T]) -> T:
    """The same where nobody has made that user."""
    return _in_thread(called, "")


def _in_thread(called: Callable[[], T], line: str) -> T:
    def run(passwd: str) -> T:
        assert _libc.unshare(_CLONE_NEWNS) == 0
        assert _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) == 0
        assert _libc.mount(passwd.encode(), bytes(_PASSWD), None, _MS_BIND, None) == 0
        return called()

    others = [text for text in _PASSWD.read_text().splitlines(keepends=True) if not text.startswith(f"{users.APPS}:")]
    users.of_apps.cache_clear()
    try:
        with tempfile.NamedTemporaryFile("w") as passwd, ThreadPoolExecutor(max_workers=1) as once:
            passwd.write("".join(others) + line)
            passwd.flush()
            os.fchmod(passwd.fileno(), 0o644)
            return once.submit(run, passwd.name).result()
    finally:
        users.of_apps.cache_clear()
