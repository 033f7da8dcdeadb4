"""Launches by the hundred: asks a small process of our own (`linux.forker`) to fork, and waits in the event loop.

`linux.spawn` starts a shell for each process, from a thread that waits for it, and moves it into its cgroup; this does
neither, and a command finds the same: its checks are those of `spawn`, and a launch that cannot go this way goes that
one (a kernel or a sandbox without clone3(2), a command line or an environment that fits no message).

Rules: one event loop uses it. `known` is called while the process still waits at its gate: should we be killed, it
either is known or runs nothing. The other process ends with us, however we end; where it ends before, what it was asked
for fails, and the next launch starts another.
"""

import array
import asyncio
import contextlib
import errno
import marshal
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from anyio import to_thread

from agent.linux import forker, orphans, spawn
from agent.linux.executable import ExecFailure
from agent.linux.forker import Request
from agent.linux.spawn import Launch, Launched

_REQUEST_BYTES_MAX: Final = forker.MESSAGE_BYTES_MAX
_LISTENERS_MAX: Final = 32
_ANSWER_BYTES_MAX: Final = 64
_NO_FORK: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL})
"""What clone3(2) says where it cannot be had."""


class Launcher:
    """The other process is started by `begin`, or by the first launch; `close` ends it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._can_fork = True

    def fork(self, leaf: Path | None) -> socket.socket:
        """A process that is nothing yet, in this cgroup, for a launch to come; it ends when this is closed.

        Raises OSError where the cgroup cannot be reached.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = [theirs.fileno()]
        try:
            with theirs:
                if leaf is not None:
                    fds.append(os.open(leaf, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                self._ask(fds)
        except OSError:
            ours.close()
            raise
        finally:
            for fd in fds[1:]:
                os.close(fd)
        return ours

    async def launch(
        self,
        launch: Launch,
        known: Callable[[Launched], None] = lambda _: None,
        forked: socket.socket | None = None,
    ) -> Launched | ExecFailure:
        """As `spawn.spawn`; `forked` is what `fork` gave for this one, and is closed."""
        with contextlib.ExitStack() as stack:
            if forked is not None:
                stack.enter_context(forked)
            command = spawn.checked(launch)
            if isinstance(command, ExecFailure):
                return command
            message = marshal.dumps(_request(launch, command))
            if not self._can_fork or len(message) > _REQUEST_BYTES_MAX or len(launch.listen) > _LISTENERS_MAX:
                return await to_thread.run_sync(spawn.spawn, launch, known)
            try:
                channel = forked or stack.enter_context(self.fork(launch.cgroup))
                channel.sendmsg([message], _rights([launch.stdout, launch.stderr, *launch.listen]))
            except OSError as error:
                return ExecFailure(error.errno or errno.EIO, f"cannot ask for a process: {error.filename or ''}")
            answer = await _answer(channel)
            if answer.startswith(b"-") and -int(answer) in _NO_FORK:
                self._can_fork = False
                return await to_thread.run_sync(spawn.spawn, launch, known)
            return _begun(channel, answer, launch, known)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, fds: list[int]) -> None:
        try:
            (self._socket or self.begin()).sendmsg([b"fork"], _rights(fds))
        except (BrokenPipeError, ConnectionResetError):  # it has ended
            self.close()
            self.begin().sendmsg([b"fork"], _rights(fds))

    def begin(self) -> socket.socket:
        """Start it anew."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = orphans.start(lambda: _start(theirs.fileno()))
        orphans.release(pid)  # nobody waits for its end
        return self._socket


def _start(channel: int) -> int:
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-E", forker.__file__],
        {},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, channel, forker.SOCKET_FD),
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )


def _rights(fds: list[int]) -> list[tuple[int, int, "array.array[int]"]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]


def _request(launch: Launch, command: Path) -> Request:
    who = launch.identity
    return (
        str(command),
        [str(command), *launch.argv[1:]],
        dict(launch.env),
        str(launch.cwd),
        launch.umask,
        None if who is None else (who.uid, who.gid, who.groups),
        launch.no_new_privs,
    )


async def _answer(channel: socket.socket) -> bytes:
    """Wait for it; nothing where the other process has ended."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not answered.done():
            answered.set_result(None)

    loop.add_reader(channel, wake)
    try:
        await answered
    finally:
        loop.remove_reader(channel)
    try:
        return channel.recv(_ANSWER_BYTES_MAX)
    except ConnectionResetError:
        return b""


def _begun(
    channel: socket.socket, answer: bytes, launch: Launch, known: Callable[[Launched], None]
) -> Launched | ExecFailure:
    if not answer or answer.startswith(b"-"):
        return ExecFailure(-int(answer or -errno.EAGAIN), "cannot start a process")
    pid, start_time = map(int, answer.split())
    orphans.keep(pid)
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        channel.close()  # it ends at its gate
        spawn.reap(pid)
        return ExecFailure(error.errno or errno.EIO, "cannot watch the process")
    if (refused := spawn.limit(pid, launch.rlimits)) is not None:
        channel.close()
        spawn.abandon(pid, handle)
        return refused
    launched = Launched(pid, handle, start_time)
    known(launched)
    with contextlib.suppress(OSError):  # somebody killed it already: its exit tells
        channel.send(forker.GO)
    return launched
