"""What the tests of the syscall room share: a process started by `spawn`, and everything it wrote, until its end."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.linux.executable import ExecFailure
from agent.linux.pidfd import ExitStatus, collect, send_signal
from agent.linux.spawn import Launch, Launched, keep_own_fds, spawn

PYTHON = sys.executable


@dataclass
class Started:
    """A process, and the end of the pipe to which it writes both its streams."""

    pid: int
    pidfd: int
    start_time: int
    output: int

    def line(self) -> str:
        """Wait for the next line that it writes."""
        read = b""
        while not read.endswith(b"\n"):
            byte = os.read(self.output, 1)
            assert byte, f"ended after {read!r}"
            read += byte
        return read.decode().rstrip("\n")

    def rest(self) -> str:
        """Wait until it has ended, and its heirs too; everything that they wrote."""
        read = b""
        while chunk := os.read(self.output, 65536):
            read += chunk
        return read.decode()

    def exit(self) -> ExitStatus:
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
        status = collect(self.pidfd)
        assert status is not None
        return status


Start = Callable[..., Started]
Spawn = Callable[[Launch], Launched | ExecFailure]


@pytest.fixture
def spawned() -> Spawn:
    return spawn


@pytest.fixture
def start(tmp_path: Path, spawned: Spawn) -> Iterator[Start]:
    """Give a function that starts a command and ends what is left of it after the test."""
    started: list[Started] = []
    keep_own_fds()

    def run(*argv: str, env: Mapping[str, str] | None = None, **launch: Any) -> Started:
        reader, writer = os.pipe()
        words: dict[str, Any] = {
            "cwd": tmp_path,
            "stdout": writer,
            "stderr": writer,
            "env": env or {"PATH": os.environ["PATH"]},
        }
        launched = spawned(Launch(argv=argv, **(words | launch)))
        os.close(writer)
        assert isinstance(launched, Launched), launched
        started.append(Started(launched.pid, launched.pidfd, launched.start_time, reader))
        return started[-1]

    yield run
    for process in started:
        send_signal(process.pidfd, 9)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED)
        os.close(process.output)
        os.close(process.pidfd)
