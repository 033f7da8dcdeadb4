"""What a started process finds: its sockets, its environment, its limits, and nothing of ours."""

import asyncio
import contextlib
import errno
import grp
import json
import os
import pwd
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from agent.linux import procfs
from agent.linux.executable import ExecFailure, Identity
from agent.linux.launcher import Launcher
from agent.linux.pidfd import ExitStatus, collect
from agent.linux.spawn import Launch, keep_own_fds, spawn
from agent.linux.terminal import Pty
from tests.integration.linux.conftest import PYTHON, Spawn, Start

FDS = "import os, json; print(json.dumps(sorted(int(n) for n in os.listdir('/proc/self/fd'))))"
GLIBCS_OWN = 1 << 31 | 1 << 32
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture(params=["by a shell", "by the launcher"])
def spawned(request: pytest.FixtureRequest) -> Iterator[Spawn]:
    """Both ways to start a process, which are to differ in nothing that can be seen."""
    if request.param == "by a shell":
        yield spawn
        return
    with asyncio.Runner() as runner, contextlib.closing(Launcher()) as launcher:
        launcher.begin()
        yield lambda launch: runner.run(launcher.launch(launch))


def script(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_sockets_arrive_from_fd_3_on_and_nothing_leaks(start: Start) -> None:
    """An app finds its sockets as fd 3 and 4, in order, and no other fd than its three streams."""
    with socket.create_server(("127.20.0.1", 0)) as first, socket.create_server(("127.20.0.2", 0)) as second:
        code = "import socket; print([socket.socket(fileno=n).getsockname()[0] for n in (3, 4)]);" + FDS
        lines = start(PYTHON, "-c", code, listen=(first.fileno(), second.fileno())).rest().splitlines()
    assert lines[0] == "['127.20.0.1', '127.20.0.2']"
    seen = json.loads(lines[1])
    assert seen[:3] == [0, 1, 2]
    assert len(seen) == 4, "0, 1, 2 and the one that lists"


def test_what_the_agent_inherited_does_not_reach_an_app(start: Start) -> None:
    """An fd that systemd or a careless shell left open in the agent stays there."""
    inherited = os.dup(0)
    os.set_inheritable(inherited, True)  # noqa: FBT003 - the standard library's own order
    keep_own_fds()
    seen = json.loads(start(PYTHON, "-c", FDS).rest())
    os.close(inherited)
    assert seen == [0, 1, 2, 3], "the last is the one that lists"


def test_who_cannot_be_watched_is_not_left_behind(
    spawned: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel gives no pidfd, the launch fails with its reason, and no process waits at a gate for ever."""

    def none_left(_pid: int, _flags: int = 0) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", none_left)
    mark = {"ROLLWAY_TEST": str(tmp_path)}
    found = spawned(Launch(argv=("/bin/true",), env=mark, cwd=tmp_path, stdout=1, stderr=2))
    assert isinstance(found, ExecFailure)
    assert found.errno == errno.EMFILE
    assert not procfs.marks(f"ROLLWAY_TEST={tmp_path}")


def test_many_sockets_in_any_order_keep_their_places(start: Start) -> None:
    """More sockets than a shell can number, whose own fds lie where others must go, are not mixed up."""
    listeners = [socket.create_server((f"127.20.1.{n}", 0)) for n in range(1, 13)]
    given = list(reversed(listeners))
    code = "import socket; print([int(socket.socket(fileno=n).getsockname()[0].split('.')[3]) for n in range(3, 15)])"
    assert (
        start(PYTHON, "-c", code, listen=tuple(one.fileno() for one in given)).rest() == f"{list(range(12, 0, -1))}\n"
    )
    for listener in listeners:
        listener.close()


def test_the_environment_is_exactly_the_given_one(start: Start) -> None:
    """Nothing of the agent's environment or of the launching shell reaches an app, and no value changes on the way."""
    env = {
        "A": "one two  'three' \"four\" $HOME `x` \\ \n end",
        "PATH": "/nowhere",
        "EMPTY": "",
        "ENV": "/x",
        "PS1": "%",
    }
    found = start("/usr/bin/env", "-0", env=env).rest()
    assert dict(pair.split("=", 1) for pair in found.rstrip("\0").split("\0")) == env


def test_listen_pid_is_the_apps_own(start: Start) -> None:
    """An app that compares LISTEN_PID with its pid takes the sockets; without sockets it is not told any."""
    code = "import os; print(os.getpid(), os.environ.get('LISTEN_PID'))"
    with socket.create_server(("127.20.0.1", 0)) as listener:
        process = start(PYTHON, "-c", code, listen=(listener.fileno(),))
        assert process.rest() == f"{process.pid} {process.pid}\n"
    process = start(PYTHON, "-c", code)
    assert process.rest() == f"{process.pid} None\n"


def test_signals_are_as_after_boot(start: Start) -> None:
    """No signal is blocked or ignored in an app, whatever the agent does with its own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        status = start("/bin/grep", "^Sig[BI]", "/proc/self/status").rest()
    finally:
        signal.signal(signal.SIGHUP, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    masks = {key: int(mask, 16) & ~GLIBCS_OWN for key, mask in (line.split() for line in status.splitlines())}
    assert masks == {"SigBlk:": 0, "SigIgn:": 0}


def test_it_reads_the_pipe_that_it_is_given(start: Start) -> None:
    """Who writes to a command is read to the end, and the command holds nothing else of the pipe."""
    reader, writer = os.pipe()
    process = start(PYTHON, "-c", "import sys; print(sys.stdin.read());" + FDS, stdin=reader)
    os.close(reader)
    os.write(writer, b"given")
    os.close(writer)
    assert process.rest() == "given\n[0, 1, 2, 3]\n", "the last is the one that lists"


def test_a_terminal_is_its_own(start: Start) -> None:
    """A command that is given a terminal has it for itself: it controls the session, and hears of its keys."""
    terminal = Pty(24, 80)
    code = "import os; print(os.ttyname(0), os.tcgetpgrp(0) == os.getpid());" + FDS
    process = start(PYTHON, "-c", code, stdin=terminal.path)
    assert process.rest() == f"{terminal.path} True\n[0, 1, 2, 3]\n"
    os.close(terminal.master)
    os.close(terminal.slave)


def test_session_folder_umask_stdin_and_limits(start: Start, tmp_path: Path) -> None:
    """An app leads a session, stands in its folder, reads nothing from stdin and has the limits that were given."""
    code = (
        "import os, resource, sys; old = os.umask(0);"
        "print(os.getsid(0) == os.getpid(), os.getcwd(), oct(old), sys.stdin.read() == '',"
        "resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    folder = tmp_path / "a b"
    folder.mkdir()
    limits = {resource.RLIMIT_NOFILE: (111, 222), resource.RLIMIT_CORE: (0, 0)}
    found = start(PYTHON, "-c", code, cwd=folder, umask=0o027, rlimits=limits).rest()
    assert found == f"True {folder} 0o27 True (111, 222) (0, 0)\n"


def test_another_user_without_new_privileges(start: Start) -> None:
    """An app with a user of its own has that user's ids and groups, no capability, and cannot gain any."""
    identity = Identity(NOBODY.pw_uid, NOBODY.pw_gid, (grp.getgrnam("daemon").gr_gid,))
    process = start("/bin/cat", "/proc/self/status", cwd=Path("/"), identity=identity, no_new_privs=True)
    status = dict(line.split(":\t", 1) for line in process.rest().splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == {str(NOBODY.pw_uid)}
    assert set(status["Gid"].split()) == {str(NOBODY.pw_gid)}
    assert status["Groups"].split() == [str(grp.getgrnam("daemon").gr_gid)]
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapInh"], 16) == 0
    assert process.pid == int(status["Pid"])


FAILURES = {
    "no such command": ("no-such-command", None, errno.ENOENT, "is not on PATH"),
    "no such file": ("./missing", None, errno.ENOENT, "missing"),
    "not executable": ("./app", "", errno.EACCES, "app"),
    "a folder": ("./", None, errno.EACCES, "/"),
    "neither program nor script": ("./app", "echo hello\n", errno.ENOEXEC, "no #! line"),
    "interpreter missing": ("./app", "#!/opt/nothing/here\n", errno.ENOENT, "/opt/nothing/here"),
    "interpreter not on PATH": ("./app", "#!/usr/bin/env nothing-here\n", errno.ENOENT, "nothing-here"),
    "empty interpreter line": ("./app", "#!\n", errno.ENOEXEC, "empty #! line"),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_what_cannot_be_started_says_why(
    failure: tuple[str, str | None, int, str], spawned: Spawn, tmp_path: Path
) -> None:
    """A failure is known before anything runs, with its errno and what it is about."""
    word, text, number, about = failure
    if text is not None:
        script(tmp_path / "app", text, 0o755 if text else 0o644)
    found = spawned(Launch(argv=(word,), env={}, cwd=tmp_path, stdout=2, stderr=2))
    assert isinstance(found, ExecFailure)
    assert (found.errno, about in found.what) == (number, True), found
    assert os.strerror(number) in str(found)


WRONG = {
    "a folder that is not there": ({"cwd": Path("/nothing/here")}, errno.ENOENT, "working directory"),
    "a folder that is a file": ({"cwd": Path("/etc/passwd")}, errno.ENOTDIR, "working directory"),
    "a variable that a shell cannot pass": ({"env": {"A.B": "1"}}, errno.EINVAL, "A.B"),
    "a variable that the shell itself sets": ({"env": {"PWD": "/"}}, errno.EINVAL, "PWD"),
    "a NUL in a value": ({"env": {"A": "x\0y"}}, errno.EINVAL, "NUL"),
    "a NUL in an argument": ({"argv": ("/bin/true", "x\0y")}, errno.EINVAL, "NUL"),
    "no command": ({"argv": ()}, errno.ENOENT, "no command"),
    "a limit above the largest": ({"rlimits": {resource.RLIMIT_NOFILE: (1, 1 << 40)}}, errno.EPERM, "resource limit"),
    "a folder that the user may not enter": (
        {"cwd": Path("/root"), "identity": Identity(NOBODY.pw_uid, NOBODY.pw_gid)},
        errno.EACCES,
        "working directory",
    ),
}


@pytest.mark.parametrize(("change", "number", "about"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_given_is_refused(
    change: dict[str, Any], number: int, about: str, spawned: Spawn, tmp_path: Path
) -> None:
    """Nothing is started with less, or with other things, than what was asked for."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    asked: dict[str, Any] = {"argv": ("/bin/true",), "env": {}, "cwd": tmp_path, "stdout": 2, "stderr": 2} | change
    found = spawned(Launch(**asked))
    assert isinstance(found, ExecFailure)
    assert (found.errno, about in found.what) == (number, True), found
    assert Path(f"/proc/self/task/{os.getpid()}/children").read_text() == children


def test_a_file_of_another_user_is_seen_to_be_closed(spawned: Spawn, tmp_path: Path) -> None:
    """What root may run and the app's user may not is refused before the launch."""
    command = script(tmp_path / "app", "#!/bin/sh\n", 0o700)
    identity = Identity(NOBODY.pw_uid, NOBODY.pw_gid)
    found = spawned(Launch(argv=(command,), env={}, cwd=Path("/"), stdout=2, stderr=2, identity=identity))
    assert isinstance(found, ExecFailure)
    assert found.errno == errno.EACCES


def test_a_program_for_no_machine_ends_with_126(start: Start, tmp_path: Path) -> None:
    """What only the exec itself can find out is told by the exit code and a line on stderr."""
    (tmp_path / "app").write_bytes(b"\x7fELF" + b"\0" * 60)
    (tmp_path / "app").chmod(0o755)
    process = start("./app")
    assert "Exec format error" in process.rest()
    assert process.exit().code == 126


def test_without_its_cgroup_an_app_does_not_start(spawned: Spawn, tmp_path: Path) -> None:
    """An app never runs outside of its limits."""
    reader, writer = os.pipe()
    asked = Launch(argv=("/bin/echo", "runs"), env={}, cwd=tmp_path, stdout=writer, stderr=2, cgroup=tmp_path / "gone")
    found = spawned(asked)
    os.close(writer)
    with os.fdopen(reader) as output:
        assert output.read() == ""
    if isinstance(found, ExecFailure):
        assert found.errno == errno.ENOENT
        return
    os.waitid(os.P_PIDFD, found.pidfd, os.WEXITED | os.WNOWAIT)
    assert collect(found.pidfd) == ExitStatus(code=125, used=ANY)
    os.close(found.pidfd)
