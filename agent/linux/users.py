"""Who a process may be: a user of this machine by name, with all groups, as the system's databases have it.

Blocking: a directory server may be asked (nsswitch.conf(5)).
"""

import os
import pwd

from agent.linux.executable import Identity


def identity_of(name: str) -> Identity | str:
    """The user of this name, or why no process of ours can be that user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return f"this host has no user {name}"
    if os.geteuid() not in (0, found.pw_uid):
        return f"only an agent that runs as root can start a process as {name}"
    return Identity(found.pw_uid, found.pw_gid, tuple(os.getgrouplist(name, found.pw_gid)))
