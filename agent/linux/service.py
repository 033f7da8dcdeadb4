"""A long-lived role beside its service manager: when it is to end, how far it is, and that it is the only one.

Rules: SIGTERM, SIGINT and the end of the lifeline mean the same; later signals hurry nothing. Who is told, and who
holds a state folder, is known to the kernel: nothing is left behind by a role that was killed.
"""

import fcntl
import os
import signal
import socket
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio.abc import TaskStatus

from agent.errors import RefusedError
from agent.wire import sdnotify

LIFELINE: Final = "ROLLWAY_LIFELINE_FD"
"""A pipe whose other end a parent holds: its end is the parent's end, however that came."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def watch_signals(ending: anyio.Event, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("already ending" if ending.is_set() else "asked to end", signal=signal.Signals(number).name)
            ending.set()


async def watch_lifeline(ending: anyio.Event) -> None:
    """Set `ending` when the parent that gave a lifeline is gone; without one, nothing."""
    text = os.environ.get(LIFELINE, "")
    if not text.isdigit():
        return
    fd = int(text)
    os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's own order
    while True:
        await anyio.wait_readable(fd)
        if not os.read(fd, 4096):
            break
    log.info("asked to end", lifeline="the parent is gone")
    ending.set()


def notify(notice: sdnotify.Notice) -> None:
    """Send `notice` to $NOTIFY_SOCKET; without one, or with nobody there, nothing."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(sdnotify.build(notice), socket.MSG_DONTWAIT, f"\0{path[1:]}" if path[0] == "@" else path)
        except OSError as error:
            log.warning("cannot tell the service manager", reason=str(error))


def is_held(state_dir: Path) -> bool:
    """Whether a role that runs holds `state_dir`."""
    try:
        fd = os.open(state_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def hold(state_dir: Path, role: str) -> int:
    """Lock `state_dir` while the descriptor that this gives is open. Raises RefusedError naming the holder."""
    fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise RefusedError(
            f"cannot start: {role} with pid {holder or 'unknown'} already runs with the state folder {state_dir}",
            f"Stop it, or give this {role} a state_dir of its own.",
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd
