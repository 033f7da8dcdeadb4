"""A long-lived role beside its service manager: when it is to end, how far it is, and that it is the only one.

Rules: SIGTERM, as a service manager stops or restarts a service, asks the role alone to end; SIGINT, as a person at a
terminal presses it, and the end of the lifeline ask for the end of all that it runs, too (`drain`). Later signals hurry
nothing. Who is told, and who holds a state folder, is known to the kernel: nothing is left behind by a role that was
killed.
"""

import contextlib
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

SYSTEMCTL_WITHIN_S: Final = 2.0
HEARD_WITHIN_S: Final = 1.0
LIFELINE: Final = "lifeline"
"""A pipe, handed over under this name, whose other end a parent holds: its end is the parent's, however that came."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Ending:
    """`asked` is set when the role is to end, `drain` when what it runs is to end before."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.drain = anyio.Event()

    def ask(self, *, drain: bool) -> None:
        if drain:
            self.drain.set()
        self.asked.set()


async def watch_signals(ending: Ending, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            is_ending = ending.asked.is_set()
            log.info("already ending" if is_ending else "asked to end", signal=signal.Signals(number).name)
            if not is_ending:
                ending.ask(drain=number == signal.SIGINT)


async def watch_lifeline(ending: Ending, fd: int | None, patience_s: float = 0) -> None:
    """Ask for the end of all when the parent that gave the lifeline `fd` is gone; without one, nothing.

    For so long another parent may come, which ends this role alone (SIGTERM) and starts it anew.
    """
    if fd is None:
        return
    while True:
        await anyio.wait_readable(fd)
        if not os.read(fd, 4096):
            break
    log.info("the parent is gone", waits_s=patience_s)
    with anyio.move_on_after(patience_s):
        await ending.asked.wait()
    if not ending.asked.is_set():
        ending.ask(drain=True)


def notify(notice: sdnotify.Notice, *, waits: bool = True) -> bool:
    """Send `notice` to $NOTIFY_SOCKET; without one, or with nobody there, nothing. False: it is to be said again.

    A manager whose queue is full, perhaps of what we had it keep, is waited for a little: a READY that is lost is never
    said again. Who says it again anyway does not wait.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(HEARD_WITHIN_S if waits else 0)
        try:
            sock.sendto(sdnotify.build(notice), f"\0{path[1:]}" if path[0] == "@" else path)
        except BlockingIOError:
            return False
        except OSError as error:
            log.warning("cannot tell the service manager", reason=str(error))
    return True


async def stops_for_good() -> bool:
    """Whether systemd stops this service and does not restart it: then (before version 254) it empties the FD store."""
    if "INVOCATION_ID" not in os.environ:
        return False
    unit = _own_unit()
    with anyio.move_on_after(SYSTEMCTL_WITHIN_S):
        try:
            listed = await anyio.run_process(["systemctl", "list-jobs", "--no-legend", "--plain", unit], check=False)
        except OSError as error:
            log.warning("cannot ask systemd what it does", reason=str(error))
            return False
        return any(line.split()[2:3] == ["stop"] for line in listed.stdout.decode().splitlines())
    return False


def _own_unit() -> str:
    return Path("/proc/self/cgroup").read_text().strip().rpartition("/")[2]


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


def holder(state_dir: Path) -> int | None:
    """The pid of the role that runs and holds `state_dir`."""
    if not is_held(state_dir):
        return None
    text = (state_dir / "lock").read_text().strip()
    return int(text) if text.isdigit() else None


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
    with contextlib.suppress(OSError):  # who holds it is for people: a full disk keeps nobody from starting again
        os.pwrite(fd, b"%-19d\n" % os.getpid(), 0)
    return fd
