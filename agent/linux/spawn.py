"""One launch from command to process, by a shell: no Python runs between fork and exec. `launcher` is the faster way.

`posix_spawn` starts a tiny `sh` (new session, default signals, empty mask, stdin a gate, listening sockets from fd 3
on), behind a `fence` where one is asked for. It waits at the gate until limits are set from outside, joins its cgroup,
sets umask, folder and LISTEN_PID, and execs the command, over `setpriv` where the user changes or no privilege may be
gained: one pid from the first to the last.

Rules: every own fd is CLOEXEC (Python's default; for inherited ones `keep_own_fds` at the agent's start), so that the
process has 0, 1, 2, its sockets and nothing else. The environment is exactly the given one and LISTEN_PID. What can be
known before is known before (`executable`) and comes back as a value; what only the exec shows is the exit code: 125
for the sh's own part, 126 found but not run, 127 not found; the sh says on stderr why. With a bash as `sh` SHLVL and
`_` are added; signals 32 and 33, which are glibc's own, stay as its posix_spawn leaves them.
"""

import contextlib
import errno
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from msgspec import Struct

from agent.linux import cgroup, orphans, pidfd, procfs
from agent.linux.executable import ExecFailure, Identity, resolve
from agent.linux.fence import Fence, FenceError, behind

SHELL: Final = "/bin/sh"
SETPRIV: Final = "/usr/bin/setpriv"
SHELL_FAILED: Final = 125
OPEN_FILES: Final = 65_536
_STATUS: Final = Path("/proc/self/status")
_NR_OPEN: Final = Path("/proc/sys/fs/nr_open")
_CAP_SYS_RESOURCE: Final = 24
_OOM_SCORE: Final = Path("/proc/self/oom_score_adj")
_SHELLS_OWN: Final = frozenset({"_", "IFS", "LINENO", "OLDPWD", "OPTIND", "PPID", "PWD", "SHLVL"})
# Positional: cgroup or "", umask, folder, whether sockets are passed, the path of its terminal or "", then the command.
_SCRIPT: Final = f"""
read -r _ || exit {SHELL_FAILED}
exec %s
[ -z "$1" ] || echo $$ >"$1/cgroup.procs" || exit {SHELL_FAILED}
umask "$2" && cd -- "$3" || exit {SHELL_FAILED}
[ -z "$4" ] || export LISTEN_PID=$$
shift 5
unset PWD OLDPWD SHLVL _
exec "$@"
"""
_FROM_NOTHING: Final = "</dev/null"
_FROM_PIPE: Final = "<&3 3<&-"
_FROM_TERMINAL: Final = '<>"$5"'
"""A session leader that has no terminal gets the one that it opens."""

Rlimits = Mapping[int, tuple[int, int]]
"""`resource.RLIMIT_…` to soft and hard."""


class Launch(Struct, frozen=True, kw_only=True):
    """Everything about a process that is to be started; fds stay the caller's."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path | str
    stdout: int
    stderr: int
    stdin: int | Path | None = None
    """A descriptor, instead of sockets; or the path of the terminal that is to be its own; None: /dev/null."""
    listen: tuple[int, ...] = ()
    """Become fd 3, 4, …; LISTEN_FDS and the like are the caller's words in `env`, LISTEN_PID is added."""
    cgroup: Path | str | None = None
    umask: int = 0o022
    identity: Identity | None = None
    no_new_privs: bool = False
    rlimits: Rlimits = {}
    fence: Fence | None = None
    """Where it may write; None: wherever its identity may."""


class Launched(Struct, frozen=True):
    """A process that runs, or waits no longer than its first instruction; the pidfd is the caller's to close."""

    pid: int
    pidfd: int
    start_time: int


def spawn(launch: Launch, known: Callable[[Launched], None] = lambda _: None) -> Launched | ExecFailure:
    """Start it. Blocks for about a millisecond; the process is a child of the caller, who collects its exit.

    `known` is called while it still waits at its gate: should we be killed, it either is known or runs nothing.
    """
    command = checked(launch)
    if isinstance(command, ExecFailure):
        return command
    gate, opener = os.pipe2(os.O_CLOEXEC)
    with _closing(gate, opener):
        try:
            pid = _start(launch, lambda: orphans.start(lambda: _start_shell(launch, command, gate)))
        except FenceError as error:
            return ExecFailure(error.errno or errno.EIO, f"cannot keep it from writing elsewhere: {error.filename}")
        except OSError as error:
            return ExecFailure(error.errno or errno.EIO, f"cannot start {SHELL}")
        try:
            handle = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)  # our child, whose exit nobody has collected: the number is its own still
            reap(pid)
            return ExecFailure(error.errno or errno.EIO, "cannot watch the process")
        if (refused := limit(pid, launch.rlimits) or _expose(pid) or _join(pid, launch)) is not None:
            abandon(pid, handle)
            return refused
        try:
            started = procfs.start_time(pid) or 0
        except OSError as error:
            abandon(pid, handle)
            return ExecFailure(error.errno or errno.EIO, error.filename)
        launched = Launched(pid, handle, started)
        known(launched)
        with contextlib.suppress(BrokenPipeError):  # somebody killed it already: its exit tells
            os.write(opener, b"\n")
    return launched


def keep_own_fds() -> None:
    """Let no fd above 2 that this process has so far, systemd's among them, reach what it starts."""
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers, not paths
        if fd > 2:  # noqa: PLR2004 - stderr
            with contextlib.suppress(OSError):  # the one that listed
                os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's own order


@cache
def raise_open_files() -> Rlimits:
    """Room for the sockets, pidfds and log pipes of many instances; gives the limits that what we start is to have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES)), hard))
    return {resource.RLIMIT_NOFILE: (soft, hard)}


def open_files_max() -> int:
    """How many a process that we start may have. Root in a container often may not raise limits."""
    status = dict(line.split(":\t", 1) for line in _STATUS.read_text().splitlines() if ":\t" in line)
    if int(status["CapEff"], 16) >> _CAP_SYS_RESOURCE & 1:
        return int(_NR_OPEN.read_text())
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@lru_cache(maxsize=1024)
def can_pass(name: str) -> bool:
    """Whether an environment variable of this name comes through the shell as it is."""
    return name.isascii() and name.isidentifier() and name not in _SHELLS_OWN


def checked(launch: Launch) -> Path | ExecFailure:
    """The file that is to be executed, all being as it can be seen now."""
    return wrong_words(launch) or resolve(launch.argv[0], launch.env, Path(launch.cwd), launch.identity)


def wrong_words(launch: Launch) -> ExecFailure | None:
    """What would not reach the process as it is given."""
    if not launch.argv:
        return ExecFailure(errno.ENOENT, "no command")
    for name, value in launch.env.items():
        if not can_pass(name):
            return ExecFailure(errno.EINVAL, f"environment variable {name!r} cannot be passed through {SHELL}")
        if "\0" in value:
            return ExecFailure(errno.EINVAL, f"environment variable {name} holds a NUL")
    if any("\0" in word for word in launch.argv):
        return ExecFailure(errno.EINVAL, f"an argument of {launch.argv[0]!r} holds a NUL")
    return None


def _start(launch: Launch, start: Callable[[], int]) -> int:
    if launch.fence is None:
        return start()
    return behind(launch.fence, (launch.stdout, launch.stderr), start)


def _start_shell(launch: Launch, command: Path, gate: int) -> int:
    terminal = str(launch.stdin) if isinstance(launch.stdin, Path) else ""
    passed = (launch.stdin,) if isinstance(launch.stdin, int) else launch.listen
    reads = _FROM_TERMINAL if terminal else _FROM_PIPE if isinstance(launch.stdin, int) else _FROM_NOTHING
    shell = [SHELL, "-c", _SCRIPT % reads, "rollway-launch"]
    leaf = launch.cgroup if launch.fence is None else None
    ours = [str(leaf or ""), f"{launch.umask:04o}", str(launch.cwd), "yes" if launch.listen else "", terminal]
    with _lifted((gate, launch.stdout, launch.stderr, *passed)) as sources:
        return os.posix_spawn(
            SHELL,
            [*shell, *ours, *_privileges(launch), str(command), *launch.argv[1:]],
            dict(launch.env),
            file_actions=[(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(sources)],
            setsid=True,
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )


def limit(pid: int, rlimits: Rlimits) -> ExecFailure | None:
    for limit, values in rlimits.items():
        try:
            resource.prlimit(pid, limit, values)
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) and error.errno else errno.EPERM
            return ExecFailure(number, f"cannot set resource limit {limit} to {values}")
    return None


def _expose(pid: int) -> ExecFailure | None:
    """What keeps us from being chosen when memory runs out is ours alone: whom nobody may kill no limit holds."""
    try:
        if int(_OOM_SCORE.read_text()) < 0:
            Path(f"/proc/{pid}/oom_score_adj").write_text("0")
    except OSError as error:
        return ExecFailure(error.errno or errno.EIO, "cannot set oom_score_adj")
    return None


def _join(pid: int, launch: Launch) -> ExecFailure | None:
    """Who is behind a fence cannot write itself into its cgroup."""
    if launch.fence is None or launch.cgroup is None:
        return None
    try:
        cgroup.write(launch.cgroup, "cgroup.procs", str(pid))
    except OSError as error:
        return ExecFailure(error.errno or errno.EIO, f"cannot join the cgroup {launch.cgroup}")
    return None


def _privileges(launch: Launch) -> list[str]:
    """The words of `setpriv` before the command, none where nothing changes."""
    words = ["--no-new-privs"] if launch.no_new_privs else []
    if (identity := launch.identity) is not None:
        groups = ",".join(map(str, identity.groups))
        words += [f"--reuid={identity.uid}", f"--regid={identity.gid}", "--inh-caps=-all"]
        words += [f"--groups={groups}" if groups else "--clear-groups"]
    return [SETPRIV, *words, "--"] if words else []


@contextlib.contextmanager
def _lifted(fds: tuple[int, ...]) -> Iterator[list[int]]:
    """Give copies above all targets: otherwise a DUP2 could overwrite the source of the next."""
    with contextlib.ExitStack() as copies:
        lifted: list[int] = []
        for fd in fds:
            lifted.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(fds)))
            copies.callback(os.close, lifted[-1])
        yield lifted


@contextlib.contextmanager
def _closing(*fds: int) -> Iterator[None]:
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)


def abandon(pid: int, handle: int) -> None:
    """End a sh that still waits at its gate."""
    pidfd.send_signal(handle, signal.SIGKILL)
    reap(pid)
    os.close(handle)


def reap(pid: int) -> None:
    """Wait for the end of a child that was killed."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    orphans.reap(pid)
