"""The launcher's own process: a small, single-threaded Python that forks where the agent, large and threaded, must not.

    python3 -I -S -E forker.py        with its end of a socket as fd 3

Each message asks for one process (`linux.launcher` is at the other end): with it come the private channel of that
launch and perhaps a cgroup's folder. The process is made by clone3(2) as a child of the agent and not of ours
(CLONE_PARENT), inside of its cgroup from its first moment on (CLONE_INTO_CGROUP): to be moved there later takes the
kernel milliseconds. Its number and start time are answered over the channel. The child reads there what it is to be, a
marshalled `Request` with output, error and listening sockets, makes itself ready, waits for the agent's word, and
executes the command: one pid from the first to the last, and a command finds what `linux.spawn` would give it.

Rules: an agent that is gone is the end of us, and of whoever still waits for its word. This imports the standard
library's smallest part alone, and nothing of Rollway: its memory is copied for each child, page by page as it writes.
"""

import _socket
import contextlib
import ctypes
import errno
import fcntl
import gc
import marshal
import os
import signal

Request = tuple[str, list[str], dict[str, str], str, int, tuple[int, int, tuple[int, ...]] | None, bool]
"""File, argv, environment, folder, umask, identity, no_new_privs."""

GO = b"g"
"""The agent's word: the process is known, and may begin."""
SOCKET_FD = 3
OWN_STREAMS = 2
"""Output and error come first, then what listens."""
MESSAGE_BYTES_MAX = 1 << 16
FDS_MAX = 64
_FDS_BYTES = _socket.CMSG_SPACE(FDS_MAX * 4)
FAILED, CANNOT_RUN, NOT_FOUND = 125, 126, 127
"""Exit codes of a child that could not become its command, as those of `linux.spawn`."""
_CLONE3 = 435
_CLONE_PARENT = 0x8000
_CLONE_INTO_CGROUP = 0x200000000
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.PyDLL(
    None, use_errno=True
)  # its calls keep the interpreter's lock: a child is alone, and goes on at once


class _CloneArguments(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack"),
            *("stack_size", "tls", "set_tid", "set_tid_size", "cgroup"),
        )
    ]


def serve(asked: "_socket.socket") -> None:
    """Fork for whoever asks, until nobody can ask any more."""
    while True:
        message, fds = _receive(asked)
        if not message:
            return
        channel, *leaf = fds
        pid = _fork(leaf[0] if leaf else None)
        if pid == 0:
            _become(channel)
        answer = b"%d %d" % (pid, _start_time(pid)) if pid > 0 else b"%d" % pid
        with contextlib.suppress(OSError):  # nobody waits for this one: its child meets the end of the channel
            os.write(channel, answer)
        for fd in fds:
            os.close(fd)


def _receive(asked: "_socket.socket") -> tuple[bytes, list[int]]:
    """The next message, nothing at the end; the descriptors that came with it."""
    message, beside, flags, _ = asked.recvmsg(MESSAGE_BYTES_MAX, _FDS_BYTES, _socket.MSG_CMSG_CLOEXEC)
    if flags & _socket.MSG_CTRUNC:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return message, [fd for _, _, data in beside for fd in memoryview(data).cast("i")]


def _fork(leaf: int | None) -> int:
    """The number of a new child of the agent, 0 in it, or -errno."""
    arguments = _CloneArguments(flags=_CLONE_PARENT)
    if leaf is not None:
        arguments.flags |= _CLONE_INTO_CGROUP
        arguments.cgroup = leaf
    pid: int = _libc.syscall(_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    return pid if pid >= 0 else -ctypes.get_errno()


def _become(number: int) -> None:
    """Be the command that is asked for over the channel of this number; never returns."""
    code = FAILED
    try:
        os.setsid()
        channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, number)
        message, fds = _receive(channel)
        if not message:
            return
        request: Request = marshal.loads(message)  # noqa: S302 - from the agent, over a socket that nobody else has
        file, argv, environment, folder, umask, identity, no_new_privs = request
        word = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, len(fds) + 1)
        lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(fds) + 1) for fd in fds]
        for target, fd in enumerate(lifted, 1):
            os.dup2(fd, target)
        os.umask(umask)
        os.chdir(folder)
        if len(fds) > OWN_STREAMS:
            environment["LISTEN_PID"] = str(os.getpid())
        if os.read(word, 1) != GO:
            return
        # Not before: the agent sets its limits first, and may not without CAP_SYS_RESOURCE once it is another user.
        if identity is not None:
            uid, gid, groups = identity
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        if no_new_privs and _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            return
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what was sent to it meanwhile is taken now
        code = CANNOT_RUN
        os.execve(file, argv, environment)  # noqa: S606 - what this is for
    except ConnectionResetError:
        pass  # the agent is gone, and the word of the instance's output is not ours
    except FileNotFoundError as error:
        code = NOT_FOUND if code == CANNOT_RUN else code
        _say(error)
    except OSError as error:
        _say(error)
    finally:
        os._exit(code)


def _say(error: OSError) -> None:
    os.write(2, f"rollway-launch: {error.filename or ''}: {error.strerror}\n".encode(errors="surrogateescape"))


def _start_time(pid: int) -> int:
    """As /proc has it; 0 of one that is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(fd, 1024).rpartition(b")")[2].split()[19])
    except OSError:
        return 0
    finally:
        os.close(fd)


def _shed() -> None:
    """Have nothing of an agent that a command is not to have: a score against the want of memory, capabilities."""
    with (
        contextlib.suppress(OSError),  # not ours to change: nor was it changed for us
        open("/proc/self/oom_score_adj", "r+", encoding="ascii") as score,  # noqa: PTH123 - pathlib is large
    ):
        if int(score.read()) < 0:
            score.seek(0)
            score.write("0")
    _libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header, data = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if _libc.capget(header, data) == 0:
        data[2] = data[5] = 0  # the inheritable ones
        _libc.capset(header, data)


def main() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):  # the C library's own
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the agent is who ends us, by being gone
    asked = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, SOCKET_FD)
    os.set_inheritable(SOCKET_FD, False)  # noqa: FBT003 - the standard library's own order
    _shed()
    gc.collect()
    gc.freeze()
    gc.disable()
    serve(asked)


if __name__ == "__main__":
    main()
