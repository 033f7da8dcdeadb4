"""`rollway` as a person starts it: on a terminal of its own, or into a pipe; read with deadlines."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from agent.linux import procfs
from tests.integration.ready import is_readable

ROOT: Final = Path(__file__).parents[3]
DEADLINE_S: Final = 20.0
ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")
RUN_DIR: Final = re.compile(r"ROLLWAY_DRAIN_FILE=(.*)/i/[^/]+/drain")


class Terminal:
    """One command; what it wrote so far is in `output`."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process: Final = process
        self.output = ""
        self._fd = fd

    @property
    def lines(self) -> list[str]:
        """What a person reads, without colours."""
        return ESCAPES.sub("", self.output).replace("\r\n", "\n").splitlines()

    def until(self, words: str, times: int = 1) -> str:
        """Read until a line has these words, for so many times; gives that line."""
        deadline = time.monotonic() + DEADLINE_S
        while len(found := [line for line in self.lines if words in line]) < times:
            assert self._read(deadline), f"{words!r} did not come in:\n{self.output}"
        return found[times - 1]

    def press(self, key: bytes) -> None:
        os.write(self._fd, key)

    def ctrl_c(self) -> None:
        self.press(b"\x03")

    def end(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + DEADLINE_S
        while self._read(deadline):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def run_dir(self, pid: int) -> Path:
        """Where it keeps what belongs to its instances, as one of them sees it once it executes its command."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            environ = Path(f"/proc/{pid}/environ").read_bytes().replace(b"\0", b"\n").decode()
            if (found := RUN_DIR.search(environ)) is not None:
                return Path(found[1])
            signal.sigtimedwait([], 0.02)
        pytest.fail(f"process {pid} has not executed its command")

    def _read(self, deadline: float) -> bool:
        ready = is_readable(self._fd, deadline - time.monotonic())
        if not ready:
            return False
        try:
            chunk = os.read(self._fd, 1 << 16)
        except OSError:  # EIO: a terminal that nobody has any more
            return False
        self.output += chunk.decode(errors="replace")
        return bool(chunk)


def dev(
    folder: Path, *words: str, env: Mapping[str, str] | None = None, pipe: bool = False
) -> AbstractContextManager[Terminal]:
    """`rollway dev` in `folder`."""
    return rollway(folder, "dev", *words, env=env, pipe=pipe)


@contextlib.contextmanager
def rollway(folder: Path, *words: str, env: Mapping[str, str] | None = None, pipe: bool = False) -> Iterator[Terminal]:
    """Run it in `folder`; killed at the end where it still lives."""
    ours, theirs = os.pipe() if pipe else os.openpty()

    def take_terminal() -> None:
        if not pipe:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    passed = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "PORT")}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "agent", *words],
        cwd=folder,
        env={**passed, "PYTHONPATH": str(ROOT), "TERM": "xterm", **(env or {})},
        stdin=subprocess.DEVNULL if pipe else theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509 - no thread of ours runs by then
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def is_gone(run_dir: Path) -> bool:
    """Whether nothing is left of what ran there: no process, no folder; waits for the last moment of it."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if not run_dir.exists() and not procfs.marks(f"ROLLWAY_DRAIN_FILE={run_dir}/"):
            return True
        signal.sigtimedwait([], 0.02)
    return False
