"""A fleet as a user has it: `rollway up` in a process of its own, and the CLI beside it."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final, cast

import psutil

ROOT: Final = Path(__file__).parents[2]
SHOP: Final = ROOT / "config" / "examples" / "shop"
DEADLINE_S: Final = 60.0
Json = dict[str, "str | int | bool | list[Json] | Json | None"]


def rollway_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "agent", *words]


class Fleet:
    """One `rollway up --dir D`. `rollway()` runs a verb against it and returns what a script would see."""

    def __init__(self, folder: Path, *, hosts: int = 3, net: str | None = None) -> None:
        self.folder, self.hosts, self.net = folder, hosts, net
        self.process: subprocess.Popen[bytes] | None = None
        self.output = folder / "up.log"
        self.ready_line = ""

    def start(self) -> None:
        """Start `rollway up` and wait for its ready line."""
        words = ["up", "--hosts", str(self.hosts), "--dir", str(self.folder / "up")]
        words += ["--net", self.net] if self.net else []
        process = subprocess.Popen(
            rollway_command(*words),
            stdout=subprocess.PIPE,
            stderr=self.output.open("ab"),
            cwd=ROOT,
            start_new_session=True,
        )
        self.process = process
        self.ready_line = self._first_line(process)
        self._drain(process)

    def _first_line(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        selector = selectors.DefaultSelector()
        selector.register(process.stdout, selectors.EVENT_READ)
        line, end = b"", time.monotonic() + DEADLINE_S
        while not line.endswith(b"\n"):
            if not selector.select(max(0, end - time.monotonic())) and time.monotonic() > end:
                raise AssertionError(
                    f"`rollway up` is not ready in {DEADLINE_S:g} s:\n{self.output.read_text()[-4000:]}"
                )
            byte = os.read(process.stdout.fileno(), 1)
            if not byte:
                raise AssertionError(f"`rollway up` ended before it was ready:\n{self.output.read_text()[-4000:]}")
            line += byte
        selector.close()
        return line.decode()

    def _drain(self, process: subprocess.Popen[bytes]) -> None:
        """Its further output goes to a file, by a process that ends with the pipe."""
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), True)
        subprocess.Popen(["cat"], stdin=process.stdout, stdout=(self.folder / "apps.log").open("ab"))
        process.stdout.close()

    def stop(self) -> int:
        """Ctrl-C; gives the exit code. What it left behind is an error of the test that calls `leftovers`."""
        process = self.process
        if process is None:
            return 0
        self.process = None
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            for child in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                child.kill()
            raise AssertionError(f"`rollway up` did not stop in {DEADLINE_S:g} s") from None

    def rollway(self, *words: str, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one verb; fails unless it exits with `code`."""
        environment = {**os.environ, "ROLLWAY_CONFIG": str(self.folder / "up" / "client.toml"), "NO_COLOR": "1"}
        environment["PYTHONPATH"] = str(ROOT)
        done = subprocess.run(
            rollway_command(*words),
            capture_output=True,
            text=True,
            env=environment,
            cwd=cwd or self.folder,
            check=False,
            timeout=180,
        )
        said = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert done.returncode == code, f"rollway {' '.join(words)}: exit {done.returncode}, not {code}\n{said}"
        return done

    def json(self, *words: str, code: int = 0) -> Json:
        return cast("Json", json.loads(self.rollway(*words, "--json", code=code).stdout))

    def rows(self, *words: str) -> list[Json]:
        return cast("list[Json]", json.loads(self.rollway(*words, "--json").stdout))

    def releases(self, app: str, environment: str = "local") -> set[str]:
        """The releases that instances of the app run now, on any host."""
        return {str(row["release"]) for row in self.rows("ps", app, environment) if row["state"] != "stopped"}

    def address(self, host: str = "h1") -> str:
        """The loopback address that `rollway up` gave the host."""
        hosts = cast("list[dict[str, str]]", self.json("status")["hosts"])
        return next(entry["address"] for entry in hosts if entry["host"] == host)

    def pids(self, role: str) -> list[int]:
        """Processes of `rollway up`'s own children: `coordinator` or `agent`."""
        assert self.process is not None
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                words = child.cmdline()
            except psutil.Error:
                continue
            if (role, "run") in pairwise(words):  # each is started as `-m agent ROLE run`
                found.append(child.pid)
        return sorted(found)


@contextmanager
def fleet(folder: Path, *, hosts: int = 3, net: str | None = None) -> Iterator[Fleet]:
    """A started fleet, stopped at the end whatever happens."""
    one = Fleet(folder, hosts=hosts, net=net)
    one.start()
    try:
        yield one
    finally:
        one.stop()
    with (folder / "apps.log").open(errors="replace") as records:  # an app may stumble; its records name a stream
        said = one.output.read_text() + "".join(record for record in records if '"stream":' not in record)
    assert "Traceback" not in said, f"a role stumbled: {said[said.index('Traceback') - 2000 :][:6000]}"


def wait_for(what: str, true: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Ask again until it is so; the pause between two questions is no assertion on time."""
    end = time.monotonic() + deadline_s
    pause = selectors.DefaultSelector()
    while not true():
        assert time.monotonic() < end, f"not so within {deadline_s:g} s: {what}"
        pause.select(0.05)
    pause.close()
