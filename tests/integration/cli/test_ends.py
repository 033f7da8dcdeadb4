"""How a command ends that the operating system refuses something, or that is ended from outside."""

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.e2e.repositories import repository

ROOT = Path(__file__).parents[3]
DEADLINE_S = 20
SLOW_APP = """
app = "slow"
[process.web]
command = "true"
[build]
run = ["echo begun; sleep 600"]
"""


def rollway(*words: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command line, its streams changed by what `shell` says."""
    command = ["/bin/sh", "-c", f'exec "$0" -m agent "$@" {shell}', sys.executable, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


REFUSED = {
    "a folder that cannot be made": (["up", "--dir", "/proc/rollway"], "", "No such file or directory"),
    "a folder below a file": (["up", "--dir", f"{__file__}/up"], "", "Not a directory"),
    "an answer that nobody can keep": (["check", f"{ROOT}/config/examples/shop"], ">/dev/full", "No space left"),
}


@pytest.mark.parametrize(("words", "shell", "said"), REFUSED.values(), ids=REFUSED)
def test_refusal_of_the_system(words: list[str], shell: str, said: str) -> None:
    """What the system refuses is one error of two lines with exit code 1, not a traceback."""
    done = rollway(*words, shell=shell)
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_build_into_what_is_no_folder(tmp_path: Path) -> None:
    """A build whose output folder is a file says so."""
    source = repository(tmp_path / "r", {"v1": {"rollway.toml": SLOW_APP.partition("[build]")[0]}})
    done = rollway("build", str(source), "--output", "/dev/null")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "/dev/null" in done.stderr


CLOSED = {"standard output": ">&-", "standard error": "2>&-", "all streams": "<&- >&- 2>&-"}


@pytest.mark.parametrize("shell", CLOSED.values(), ids=CLOSED)
def test_closed_streams(shell: str) -> None:
    """A command that was started with closed streams does its work and gives its exit code."""
    done = rollway("check", f"{ROOT}/config/examples/shop", shell=shell)
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def building(folder: Path, *words: str, ctrl_c: str) -> Iterator["subprocess.Popen[str]"]:
    """`rollway build` or another command that builds, while its build line sleeps; `ctrl_c`: default or ignore."""
    source = repository(folder / "r", {"v1": {"rollway.toml": SLOW_APP}})
    (folder / "tmp").mkdir()
    (folder / "client.toml").write_text('coordinator = "https://127.0.0.1:9"\ntoken = "t"\n')
    with subprocess.Popen(
        ["env", f"--{ctrl_c}-signal=INT", sys.executable, "-m", "agent", *words],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder / "tmp"),
            "ROLLWAY_CONFIG": str(folder / "client.toml"),
        },
        cwd=source,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stderr, selectors.EVENT_READ)
            assert selector.select(DEADLINE_S), "the build says nothing"
        while process.stderr.readline() not in {"begun\n", ""}:
            pass
        try:
            yield process
        finally:
            process.kill()


BUILDING = {
    "build": ["build", "--version", "1"],
    "build to a folder": ["build", "--version", "1", "--output", "."],
    "release create": ["release", "create", "slow", "local", "--ref", "v1"],
    "swap": ["swap", "slow", "local", "--ref", "v1"],
}


ENDED = {
    "Ctrl-C": (signal.SIGINT, "default"),
    "SIGTERM": (signal.SIGTERM, "default"),
    "SIGTERM behind a shell's &": (signal.SIGTERM, "ignore"),
}


@pytest.mark.parametrize(("number", "ctrl_c"), ENDED.values(), ids=ENDED)
@pytest.mark.parametrize("words", BUILDING.values(), ids=BUILDING)
def test_ended_while_it_builds(tmp_path: Path, words: list[str], number: signal.Signals, ctrl_c: str) -> None:
    """Ctrl-C and SIGTERM end a command that builds at once; no process of the build and no folder of it is left."""
    with building(tmp_path, *words, ctrl_c=ctrl_c) as process:
        lines = psutil.Process(process.pid).children(recursive=True)
        assert any("sleep 600" in " ".join(line.cmdline()) for line in lines)
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == 130
    _, alive = psutil.wait_procs(lines, DEADLINE_S)
    assert not alive
    assert list((tmp_path / "tmp").iterdir()) == []
