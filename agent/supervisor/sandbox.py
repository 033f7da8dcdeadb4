"""The sandbox of an instance in the kernel's words: who it is, where it may write; what of that cannot be had here.

Blocking: the system's databases of users may be asked.
"""

from pathlib import Path
from typing import Final

from agent.linux import fence, users
from agent.linux.fence import Fence
from agent.linux.users import User
from agent.model.process import Sandbox

WRITABLE: Final = "writable"
_CANNOT_KEEP: Final = (
    "this host cannot keep sandbox.writable: that takes Linux 6.2 with Landlock, or Linux 5.13 with Landlock and an "
    'agent that may mount (here: {}; enforce = "best-effort" does without)'
)


def user_of(sandbox: Sandbox) -> User | str | None:
    """Who an instance is; why it cannot be; None: who the agent is."""
    name = users.of_apps() if sandbox.user is None and sandbox.as_app else sandbox.user
    return None if name is None else users.find(name)


def unkept(sandbox: Sandbox) -> tuple[str, ...]:
    """What this host cannot keep of it."""
    return () if sandbox.writable is None or fence.means().suffice else (WRITABLE,)


def refusal(sandbox: Sandbox, release: str | None = None) -> str:
    """Why nothing is started in it on this host, where the release may have a place already, or nothing."""
    if unkept(sandbox) and not sandbox.best_effort:
        return _CANNOT_KEEP.format(fence.means())
    for path in map(Path, sandbox.writable or ()):
        if why := fence.unfit(path):
            return f"sandbox.writable: {why}"
        if release is not None and Path(release).is_relative_to(path):
            return f"sandbox.writable: {path} holds the release, which nobody writes"
    return ""


def fence_of(sandbox: Sandbox, tmp: str) -> Fence | None:
    """Around a process with this TMPDIR; None where it may write wherever its user may."""
    if sandbox.writable is None or unkept(sandbox):
        return None
    return Fence((Path(tmp).resolve(), *map(Path, sandbox.writable)), fence.means())
