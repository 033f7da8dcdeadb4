"""Who a process may be: a user of this machine by name, with all groups, as the system's databases have it.

Blocking: a directory server may be asked (nsswitch.conf(5)).
"""

import os
import pwd
from functools import cache
from typing import Final

from msgspec import Struct

from agent.linux.executable import Identity

APPS: Final = "rollway-app"
"""Whom a host has for apps that name no user."""


class User(Struct, frozen=True, kw_only=True):
    name: str
    home: str
    identity: Identity | None
    """None: it is the one that this process is."""

    @property
    def environment(self) -> dict[str, str]:
        """What login(1) would tell it of itself."""
        return {"HOME": self.home, "LOGNAME": self.name, "USER": self.name}


@cache
def of_apps() -> str | None:
    """`rollway-app`, where this process can start others as that user; who goes or comes later changes nothing."""
    return APPS if os.geteuid() == 0 and isinstance(find(APPS), User) else None


def find(name: str) -> User | str:
    """The user of this name, or why no process of ours can be that user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return f"this host has no user {name}"
    own = os.geteuid()
    if own not in (0, found.pw_uid):
        return f"only an agent that runs as root can start a process as {name}"
    groups = tuple(os.getgrouplist(name, found.pw_gid))
    identity = None if own == found.pw_uid != 0 else Identity(found.pw_uid, found.pw_gid, groups)
    return User(name=found.pw_name, home=found.pw_dir, identity=identity)
