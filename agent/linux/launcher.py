"""Launches by the hundred: asks a small process of our own (`native/forker.c`) to fork, and waits in the event loop.

`linux.spawn` starts a shell for each process, from a thread that waits for it, and moves it into its cgroup; this does
neither, and a command finds the same: its checks are those of `spawn`, and a launch that cannot go this way goes that
one (a kernel or a sandbox without clone3(2), a command line or an environment that fits no message, a fence; more at
once than the other process has read).

Rules: one event loop uses it. `known` is called while the process still waits at its gate: should we be killed, it
either is known or runs nothing. Who is told of as launched executes its command: whoever looks finds its environment.
The other process ends with us, however we end; where it ends before, what it was asked for fails, and the next launch
starts another.
"""

import array
import contextlib
import errno
import math
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from anyio import to_thread
from msgspec import Struct

from agent.linux import orphans, spawn
from agent.linux.clock import SAME_MOMENT_S
from agent.linux.executable import ExecFailure
from agent.linux.spawn import Launch, Launched
from agent.linux.watch import readable

FORKER: Final = Path(__file__).with_name("forker")
ANSWER_WITHIN_S: Final = 10.0
EXECUTES_WITHIN_S: Final = 1.0
"""So long a command that hangs on its disk holds up who launches it."""
# What `native/forker.c` has under these names.
_ASKED: Final = 3
_MESSAGE_BYTES_MAX: Final = 1 << 16
_NUMBERS: Final = struct.Struct("=7I")
_ANSWER: Final = struct.Struct("=qQ")
_IDENTITY, _NO_NEW_PRIVS, _INPUT = 1, 2, 4
_GO: Final = b"g"
"""Our word: the process is known, and may begin."""
_ITS_OWN: Final = "LISTEN_PID"
"""The variable that it sets itself, where it is given sockets."""
_LISTENERS_MAX: Final = 32
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
        self._asked: tuple[object, ...] = ()
        self._at_s = -math.inf
        self._found: Path | ExecFailure = ExecFailure(errno.ENOENT, "")

    def ahead(self, launch: Launch) -> Forked | None:
        """Begin a launch that will most likely come, all but its last step; None where that cannot be done."""
        with contextlib.suppress(OSError):
            command = self._check(launch)
            if not isinstance(command, ExecFailure):
                return self._fork(launch, command)
        return None

    async def launch(
        self, launch: Launch, known: Callable[[Launched], None] = lambda _: None, forked: Forked | None = None
    ) -> Launched | ExecFailure:
        """As `spawn.spawn`; `forked` is what was begun ahead, and is used or closed. Not to be cancelled: shield it."""
        if forked is not None and forked.launch != launch:
            forked.close()
            forked = None
        is_ahead = forked is not None
        if forked is None:
            command = self._check(launch)
            if isinstance(command, ExecFailure):
                return command
            try:
                forked = self._fork(launch, command)
            except OSError as error:
                return ExecFailure(error.errno or errno.EIO, "cannot ask for a process")
        if forked is not None:
            with contextlib.closing(forked):
                launched = await self._launch(forked, known, answered=is_ahead)
            if launched is not None:
                return launched
        return await to_thread.run_sync(spawn.spawn, launch, known)

    async def _launch(
        self, forked: Forked, known: Callable[[Launched], None], *, answered: bool
    ) -> Launched | ExecFailure | None:
        """None where nobody may fork on this host; `answered` where the answer is most likely there already."""
        answer = await _heard(forked.channel, ANSWER_WITHIN_S, at_once=answered)
        if answer is None:
            self.close()  # whatever holds it up: the next launch has another
        pid, start_time = _ANSWER.unpack(answer) if answer else (-errno.EAGAIN, 0)
        if -pid in _NO_FORK:
            self._can_fork = False
            return None
        if pid < 0:
            where = f" in {forked.launch.cgroup}" if forked.launch.cgroup else ""
            return ExecFailure(-pid, f"cannot start a process{where}")
        launched = _begun(forked, pid, start_time, known)
        if isinstance(launched, Launched):
            await _heard(forked.channel, EXECUTES_WITHIN_S)  # closed as it executes its command, or ends
        return launched

    def _check(self, launch: Launch) -> Path | ExecFailure:
        """As `spawn.checked`: looked at once for those that start in the same moment."""
        if (wrong := spawn.wrong_words(launch)) is not None:
            return wrong
        asked = (launch.argv[0], launch.env.get("PATH"), launch.cwd, launch.identity)
        if asked != self._asked or time.monotonic() - self._at_s > SAME_MOMENT_S:
            self._found = spawn.checked(launch)
            self._asked, self._at_s = asked, time.monotonic()
        return self._found

    def _fork(self, launch: Launch, command: Path) -> Forked | None:
        """A process that gets ready for it; None where it cannot go this way. Raises OSError."""
        if launch.fence is not None or not self._can_fork or len(launch.listen) > _LISTENERS_MAX:
            return None
        message = _message(launch, command)
        if len(message) > _MESSAGE_BYTES_MAX:
            return None
        given = (launch.stdin,) if isinstance(launch.stdin, int) else ()
        passed = () if given else launch.listen
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._ask(message, [theirs.fileno(), *given, launch.stdout, launch.stderr, *passed])
            except OSError as error:
                ours.close()
                if isinstance(error, BlockingIOError):  # it has not yet read what others asked for
                    return None
                raise
        return Forked(ours, launch)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, message: bytes, fds: list[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            (self._socket or self.begin()).sendmsg([message], rights)
        except (BrokenPipeError, ConnectionResetError):  # it has ended
            self.close()
            self.begin().sendmsg([message], rights)

    def begin(self) -> socket.socket:
        """Start it anew."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's own order
        with theirs:
            pid = orphans.start(lambda: _start(theirs.fileno()))
        orphans.release(pid)  # nobody waits for its end
        return self._socket


def _start(asked: int) -> int:
    return os.posix_spawn(
        FORKER,
        [str(FORKER)],
        {"LC_ALL": "C.UTF-8"},  # who has no environment looks like one that is just being executed (`procfs`)
        file_actions=[
            (os.POSIX_SPAWN_DUP2, asked, _ASKED),
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )


def _message(launch: Launch, command: Path) -> bytes:
    """As the other process reads it."""
    who, groups = launch.identity, launch.identity.groups if launch.identity else ()
    flags = (_IDENTITY if who else 0) | (_NO_NEW_PRIVS if launch.no_new_privs else 0)
    flags |= _INPUT if isinstance(launch.stdin, int) else 0
    uid, gid = (who.uid, who.gid) if who else (0, 0)
    variables = [f"{name}={value}" for name, value in launch.env.items() if not (launch.listen and name == _ITS_OWN)]
    terminal = str(launch.stdin) if isinstance(launch.stdin, Path) else ""
    words = [str(launch.cgroup or ""), str(launch.cwd), terminal, str(command), *launch.argv[1:], *variables, ""]
    numbers = _NUMBERS.pack(flags, launch.umask, uid, gid, len(groups), len(launch.argv), len(variables))
    return numbers + struct.pack(f"={len(groups)}I", *groups) + "\0".join(words).encode(errors="surrogateescape")


async def _heard(channel: socket.socket, within_s: float, *, at_once: bool = False) -> bytes | None:
    """What is said there next; nothing once the other end is closed, None where neither happens in time."""
    if at_once:
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            return channel.recv(_ANSWER.size, socket.MSG_DONTWAIT)
    if not await readable(channel.fileno(), within_s):
        return None
    try:
        return channel.recv(_ANSWER.size, socket.MSG_DONTWAIT)
    except ConnectionResetError:  # and has left our word unread
        return b""


def _begun(forked: Forked, pid: int, start_time: int, known: Callable[[Launched], None]) -> Launched | ExecFailure:
    orphans.keep(pid)
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        forked.close()  # it ends at its gate
        spawn.reap(pid)
        return ExecFailure(error.errno or errno.EIO, "cannot watch the process")
    if (refused := spawn.limit(pid, forked.launch.rlimits)) is not None:
        forked.close()
        spawn.abandon(pid, handle)
        return refused
    launched = Launched(pid, handle, start_time)
    known(launched)
    with contextlib.suppress(OSError):  # somebody killed it already: its exit tells
        forked.channel.send(_GO)
    return launched
