"""A child process of `up`: started, known to be ready by its own word, started again when it ends by itself.

Rules: `up` plays systemd's part. Each child has a notify socket of its own, in the abstract namespace, a store of
descriptors that come back to its next process (sd_notify(3), sd_listen_fds(3)), an output of its own, and a lifeline: a
pipe that ends with `up`, however that ends. It has a session of its own, so that Ctrl-C reaches `up` alone, which then
ends its children in order.
"""

import array
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread

import agent
from agent.errors import FailedError
from agent.linux import pidfd, service, spawn
from agent.linux.executable import ExecFailure
from agent.wire import sdnotify

DELAYS_S: Final = (0.2, 10.0)
"""Before it is started again: the first time, and at most."""
PROGRAM: Final = (sys.executable, "-P", "-m", "agent")
_HEALTHY_S: Final = 5.0
_STORE_MAX: Final = 16_384
_FDS_A_MESSAGE: Final = 4
_PACKAGE: Final = Path(agent.__file__).parent.parent


class Child:
    """One role as a process. `run` owns it: leaving `run` leaves no process."""

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        folder: Path,
        *,
        lifeline: int,
        say: Callable[[str], None],
        program: Sequence[str] = PROGRAM,
        delays_s: tuple[float, float] = DELAYS_S,
    ) -> None:
        self.name = name
        self.ended = anyio.Event()
        """It ended for good: it was asked to, or it never became ready."""
        self.started = False
        self.ending = "has not begun"
        """How it last ended, in words."""
        self._words = (*program, *words)
        self._first_delay_s, self._largest_delay_s = delays_s
        self._folder = folder
        self._lifeline = lifeline
        self.output, self._output = os.pipe()
        """Where to read what it writes: one pipe for all its processes, so that a next one completes a torn record."""
        self._say = say
        self._rlimits = spawn.raise_open_files()
        self._kept: list[tuple[str, int]] = []
        self._pidfd: int | None = None
        self._ready = anyio.Event()
        self._stopping = anyio.Event()

    def close(self) -> None:
        """It is never to be started: nobody will write."""
        if not self.started:
            os.close(self._output)

    async def run(self) -> None:
        """Keep the child running until `stop`; one that ends before it was ever ready is not started again."""
        self.started = True
        try:
            with _notify_socket(f"rollway/up/{os.getpid()}/{self.name}") as notices:
                await self._keep_running(notices)
        finally:
            for _, fd in self._kept:
                os.close(fd)
            os.close(self._output)
            self.ended.set()

    async def is_ready(self) -> bool:
        """Wait until it said so, or ended before that."""
        async with anyio.create_task_group() as tasks:
            for event in (self._ready, self.ended):
                tasks.start_soon(_cancel_at, event, tasks.cancel_scope)
        return self._ready.is_set()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, and start it no more."""
        self._stopping.set()
        if self._pidfd is not None:
            pidfd.send_signal(self._pidfd, number)

    @property
    def pid(self) -> int | None:
        """Of the process that runs."""
        found = pidfd.pid_of(self._pidfd) if self._pidfd is not None else None
        return found[0] if found else None

    async def _keep_running(self, notices: socket.socket) -> None:
        delay_s = self._first_delay_s
        while not self._stopping.is_set():
            began_s = anyio.current_time()
            self.ending = await self._run_once(notices)
            if self._stopping.is_set() or not self._ready.is_set():
                return
            if anyio.current_time() - began_s > _HEALTHY_S:
                delay_s = self._first_delay_s
            self._say(f"{self.name} {self.ending}; starts again in {delay_s:g} s")
            with anyio.move_on_after(delay_s):
                await self._stopping.wait()
            delay_s = min(2 * delay_s, self._largest_delay_s)

    async def _run_once(self, notices: socket.socket) -> str:
        """Run the process to its end; gives how it ended, in words."""
        launched = await to_thread.run_sync(spawn.spawn, self._launch())
        if isinstance(launched, ExecFailure):
            raise FailedError(f"cannot start the {self.name}: {launched}")
        self._pidfd = launched.pidfd
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hear, notices)
                status = await pidfd.wait_exit(launched.pidfd)
                tasks.cancel_scope.cancel()
            self._take_in(notices)  # its last words: what it stored is for the next
        finally:
            with anyio.CancelScope(shield=True):
                self._pidfd = None
                await _ended(launched.pidfd)
        if status.signal is not None:
            return f"ended by {signal.Signals(status.signal).name}"
        return f"ended with exit code {status.code}"

    def _launch(self) -> spawn.Launch:
        names = [service.LIFELINE, *(name for name, _ in self._kept)]
        fds = (self._lifeline, *(fd for _, fd in self._kept))
        own = {
            "PYTHONPATH": str(_PACKAGE),
            "NOTIFY_SOCKET": f"@rollway/up/{os.getpid()}/{self.name}",
            "LISTEN_FDS": str(len(fds)),
            "LISTEN_FDNAMES": ":".join(names),
        }
        passed = {
            name: value
            for name, value in os.environ.items()
            if spawn.can_pass(name) and not name.startswith(("LISTEN_", "WATCHDOG_"))
        }
        return spawn.Launch(
            argv=self._words,
            env=passed | own,
            cwd=self._folder,
            stdout=self._output,
            stderr=2,
            listen=fds,
            rlimits=self._rlimits,
        )

    async def _hear(self, notices: socket.socket) -> None:
        while True:
            await anyio.wait_readable(notices)
            self._take_in(notices)

    def _take_in(self, notices: socket.socket) -> None:
        while True:
            try:
                datagram, fds, flags = _received(notices)
            except BlockingIOError:
                return
            notice = sdnotify.parse(datagram)
            if flags & socket.MSG_CTRUNC:
                self._say(f"{self.name} sent more descriptors at once than are taken: some are lost")
            if notice.fd_store and notice.fd_name and len(self._kept) + len(fds) <= _STORE_MAX:
                self._kept += [(notice.fd_name, fd) for fd in fds]
                fds = []
            if notice.fd_store_remove:
                self._forget(notice.fd_name)
            for fd in fds:  # of a barrier, which is lifted so; or there was no room
                os.close(fd)
            if notice.ready:
                self._ready.set()

    def _forget(self, name: str | None) -> None:
        for fd in [fd for kept, fd in self._kept if kept == name]:
            os.close(fd)
        self._kept = [(kept, fd) for kept, fd in self._kept if kept != name]


def _received(notices: socket.socket) -> tuple[bytes, list[int], int]:
    """The next datagram, what came along, and flags. Not socket.recv_fds: in Python 3.11 it forgets the flags."""
    fds = array.array("i")
    room = socket.CMSG_LEN(_FDS_A_MESSAGE * fds.itemsize)
    # Unlike other descriptors in Python these would be inherited by every child that is started from now on.
    datagram, more, flags, _ = notices.recvmsg(sdnotify.DATAGRAM_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    for _level, kind, data in more:
        if kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return datagram, fds.tolist(), flags


async def _ended(handle: int) -> None:
    """Leave no process behind, whoever cancelled us."""
    pidfd.send_signal(handle, signal.SIGKILL)
    await pidfd.wait_exit(handle)
    os.close(handle)


async def _cancel_at(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _notify_socket(name: str) -> socket.socket:
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    notices.bind(f"\0{name}")
    return notices
