"""Processes by pidfd: a handle that never means another process, on asyncio and on uvloop.

Rules: nothing polls; whoever waits watches the fd. An exit is collected once, by the one who supervises: that reaps.
A process that is not our child (adopted after the agent's restart) is reaped by its parent; then the kernel tells the
status from 6.15 on, and before that it is unknown: a value of its own, never 0. What a process has used is known of a
child only.
"""

import ctypes
import errno
import fcntl
import os
import resource
import select
import signal
import struct
from pathlib import Path
from typing import Final

import anyio
from msgspec import Struct

from agent.linux import orphans, procfs
from agent.linux.watch import readable
from agent.model.units import Bytes, Milliseconds

REAPED_WITHIN_S: Final = 1.0
_PIDFD_GETFD: Final = 438
_libc: Final = ctypes.CDLL(None, use_errno=True)
_PIDFD_GET_INFO: Final = 0xC040FF0B  # _IOWR(0xFF, 11, 64 bytes)
_PIDFD_INFO: Final = struct.Struct("=QQ11Ii")
_PIDFD_INFO_EXIT: Final = 1 << 3


class Used(Struct, frozen=True):
    """What a process has used in its life, with those of its children that it has waited for."""

    cpu_ms: Milliseconds
    max_rss_bytes: Bytes | None
    """None: no more than we have had ourselves, whose peak a process inherits until it executes another program."""


class ExitStatus(Struct, frozen=True):
    """How a process ended: by exit `code`, by `signal`, or (both None) nobody can tell any more."""

    code: int | None = None
    signal: int | None = None
    dumped_core: bool = False
    used: Used | None = None
    """None where it was not our child."""


UNKNOWN_EXIT: Final = ExitStatus()
_NOBODY: Final = frozenset({errno.ESRCH, errno.EINVAL, errno.ENOENT})
"""From pidfd_open(2): a thread is no process, and before Linux 6.15 nor is who is reaped in that very moment."""


def open_pidfd(pid: int, start_time: int) -> int | None:
    """Open the process with this number that started then; None where it is gone, or another has the number now."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise
    is_it = False
    try:
        is_it = procfs.start_time(pid) == start_time
    finally:
        if not is_it:
            os.close(pidfd)
    return pidfd if is_it else None


def pid_of(pidfd: int) -> tuple[int, int] | None:
    """Number and start time of the process that a pidfd means; None where it is reaped, or is no pidfd."""
    try:
        lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text("ascii").splitlines()
        pid = next((int(line.split()[1]) for line in lines if line.startswith("Pid:")), -1)
        started = procfs.start_time(pid) if pid > 0 else None
    except OSError:
        return None
    return (pid, started) if started is not None else None


def is_pidfd(fd: int) -> bool:
    """Whether the descriptor is of a process at all, reaped or not."""
    return "\nPid:" in Path(f"/proc/self/fdinfo/{fd}").read_text("ascii")


def copy_fd(pidfd: int, fd: int) -> int:
    """A copy, closed on exec, of a descriptor of that process (pidfd_getfd(2), Linux 5.6). Raises OSError."""
    copied: int = _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
    if copied < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return copied


def send_signal(pidfd: int, number: int) -> bool:
    """Send a signal; False where the process is gone."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def send_to(pid: int, start_time: int, number: int) -> bool:
    """The same to the process with this number that started then, and to nobody else who has it now. Raises OSError."""
    handle = open_pidfd(pid, start_time)
    if handle is None:
        return False
    try:
        return send_signal(handle, number)
    finally:
        os.close(handle)


def collect(pidfd: int) -> ExitStatus | None:
    """Take the exit status without waiting: None where the process lives, or is a zombie that its parent must reap."""
    try:
        seen = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if seen is None:
            return None
        # The number is its own until it is reaped; only wait4(2), which knows no pidfd, tells what it has used.
        _, status, usage = orphans.reap(seen.si_pid)
    except ChildProcessError:
        return _status_of_other(pidfd)
    return _status(status, _used(usage))


async def exited(pidfd: int) -> None:
    """Wait until the process has ended; nothing is collected."""
    await _readable(pidfd)


async def wait_exit(pidfd: int) -> ExitStatus:
    """Wait for the end and collect it; of a process that is not our child, wait until its parent has done so."""
    if (status := collect(pidfd)) is None:
        await _readable(pidfd)
        status = collect(pidfd)
    if status is not None:
        return status
    with anyio.move_on_after(REAPED_WITHIN_S):
        while (status := collect(pidfd)) is None:  # noqa: ASYNC110 - no selector tells reaped from ended
            await anyio.sleep(0.01)
    return status if status is not None else UNKNOWN_EXIT


async def _readable(fd: int) -> None:
    watched = os.dup(fd)  # two may wait for one process
    try:
        await readable(watched)
    finally:
        os.close(watched)


def _status_of_other(pidfd: int) -> ExitStatus | None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    events = dict(poll.poll(0)).get(pidfd, 0)
    if not events:
        return None
    if not events & select.POLLHUP and not _is_gone(pidfd):
        return None
    request = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, *([0] * 13)))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, request)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ESRCH):
            return UNKNOWN_EXIT
        raise
    mask, *_, status = _PIDFD_INFO.unpack(request)
    if not mask & _PIDFD_INFO_EXIT:
        return UNKNOWN_EXIT
    return _status(status)


def _status(status: int, used: Used | None = None) -> ExitStatus:
    if os.WIFSIGNALED(status):
        return ExitStatus(signal=os.WTERMSIG(status), dumped_core=os.WCOREDUMP(status), used=used)
    return ExitStatus(code=os.WEXITSTATUS(status), used=used)


def _used(usage: resource.struct_rusage) -> Used:
    is_its_own = usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu_ms = round((usage.ru_utime + usage.ru_stime) * 1_000)
    return Used(cpu_ms=cpu_ms, max_rss_bytes=usage.ru_maxrss * 1_024 if is_its_own else None)


def _is_gone(pidfd: int) -> bool:
    """Whether the process is reaped; kernels before 6.9 do not tell by a hang-up."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False
