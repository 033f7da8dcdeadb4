"""Launches by the hundred: asks a small process of our own (`linux.forker`) to fork, and waits in the event loop.

`linux.spawn` starts a shell for each process, from a thread that waits for it, and moves it into its cgroup; this does
neither, and a command finds the same: its checks are those of `spawn`, and a launch that cannot go this way goes that
one (a kernel or a sandbox without clone3(2), a command line or an environment that fits no message, a fence, input).

Rules: one event loop uses it. `known` is called while the process still waits at its gate: should we be killed, it
either is known or runs nothing. Who is told of as launched executes its command: whoever looks finds its environment.
The other process ends with us, however we end; where it ends before, what it was asked for fails, and the next launch
starts another.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread
from msgspec import Struct

from agent.linux import forker, orphans, spawn
from agent.linux.executable import ExecFailure
from agent.linux.forker import Request
from agent.linux.spawn import Launch, Launched

ANSWER_WITHIN_S: Final = 10.0
EXECUTES_WITHIN_S: Final = 1.0
"""So long a command that hangs on its disk holds up who launches it."""
_LISTENERS_MAX: Final = 32
_ANSWER_BYTES_MAX: Final = 64
_NO_FORK: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL})
"""What clone3(2) says where it cannot be had."""


class Forked(Struct, frozen=True):
    """A process that gets ready for a launch and waits at its gate; it ends where that is closed."""

    channel: socket.socket
    launch: Launch

    def close(self) -> None:
        self.channel.close()


class Launcher:
    """The other process is started by `begin`, or by the first launch; `close` ends it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._can_fork = True

    def ahead(self, launch: Launch) -> Forked | None:
        """Begin a launch that will most likely come, all but its last step; None where that cannot be done."""
        with contextlib.suppress(OSError):
            command = spawn.checked(launch)
            if not isinstance(command, ExecFailure) and (message := self._message(launch, command)) is not None:
                return Forked(self._fork(launch, message), launch)
        return None

    async def launch(
        self, launch: Launch, known: Callable[[Launched], None] = lambda _: None, forked: Forked | None = None
    ) -> Launched | ExecFailure:
        """As `spawn.spawn`; `forked` is what was begun ahead, and is used or closed."""
        if forked is not None and forked.launch != launch:
            forked.close()
            forked = None
        if forked is None:
            command = spawn.checked(launch)
            if isinstance(command, ExecFailure):
                return command
            message = self._message(launch, command)
            if message is None:
                return await to_thread.run_sync(spawn.spawn, launch, known)
            try:
                forked = Forked(self._fork(launch, message), launch)
            except OSError as error:
                return ExecFailure(error.errno or errno.EIO, f"cannot ask for a process: {error.filename or ''}")
        with contextlib.closing(forked):
            answer = b""
            with anyio.move_on_after(ANSWER_WITHIN_S) as patience:
                answer = await _answer(forked.channel)
            if patience.cancelled_caught:
                self.close()  # whatever holds it up: the next launch has another
            if answer.startswith(b"-") and -int(answer) in _NO_FORK:
                self._can_fork = False
                return await to_thread.run_sync(spawn.spawn, launch, known)
            launched = _begun(forked.channel, answer, launch, known)
            if isinstance(launched, Launched):
                with anyio.move_on_after(EXECUTES_WITHIN_S, shield=True):
                    await _answer(forked.channel)  # closed as it executes its command, or ends
            return launched

    def _message(self, launch: Launch, command: Path) -> bytes | None:
        """What asks for it; None where it cannot go this way."""
        if launch.fence is not None or launch.stdin is not None:
            return None
        message = marshal.dumps(_request(launch, command))
        fits = len(message) <= forker.MESSAGE_BYTES_MAX and len(launch.listen) <= _LISTENERS_MAX
        return message if self._can_fork and fits else None

    def _fork(self, launch: Launch, message: bytes) -> socket.socket:
        """The channel of a process that gets ready; it ends when that is closed. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, _opened(launch.cgroup) as leaf:
                self._ask([theirs.fileno(), *leaf])
            ours.sendmsg([message], _rights([launch.stdout, launch.stderr, *launch.listen]))
        except OSError:
            ours.close()
            raise
        return ours

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
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's own order
        with theirs:
            pid = orphans.start(lambda: _start(theirs.fileno()))
        orphans.release(pid)  # nobody waits for its end
        return self._socket


@contextlib.contextmanager
def _opened(folder: Path | None) -> Iterator[list[int]]:
    """The folder, if any, as a descriptor."""
    if folder is None:
        yield []
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield [fd]
    finally:
        os.close(fd)


def _start(channel: int) -> int:
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-E", forker.__file__],
        {"LC_ALL": "C.UTF-8"},  # who has no environment looks like one that is just being executed (`procfs`)
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
    for _ in range(2):  # who is gone with something unread is told of first, and then what it has answered
        with contextlib.suppress(ConnectionResetError):
            return channel.recv(_ANSWER_BYTES_MAX)
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
