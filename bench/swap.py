"""What users feel of a swap: failed requests, p99 while swapping over p99 without, seconds; beside gunicorn HUP.

Both serve the same app with the same gunicorn on this machine in one run, under the same load (new and kept
connections). Rollway runs as a user has it: `rollway up` with one host. HUP is how gunicorn swaps code by itself.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.e2e.fleet import fleet, wait_for  # noqa: E402 - the harness of the tests lies beside this folder
from tests.e2e.load import load  # noqa: E402
from tests.e2e.repositories import repository  # noqa: E402

APPS = ROOT / "tests" / "e2e" / "apps"
PROGRAMS = {name: (APPS / name).read_text() for name in ("wsgi_app.py", "gunicorn_conf.py")}
SWAPS = 4
QUIET_REQUESTS = 3_000
Row = tuple[str, int, int, float, float, float]


def measure(name: str, port: int, address: str, swap: Callable[[int], object]) -> Row:
    """Some quiet, then swaps; what users saw of both."""
    with load(port, [address], "1", "2", pause_ms=5) as users:
        users.say("phase", "quiet")
        users.wait_for(QUIET_REQUESTS // 2, QUIET_REQUESTS // 2)
        users.say("phase", "swapping")
        seconds = []
        for number in range(SWAPS):
            begun = time.perf_counter()
            swap(number)
            seconds.append(time.perf_counter() - begun)
        seen = users.end()
    quiet, swapping = seen["latency"]["quiet"]["p99"], seen["latency"]["swapping"]["p99"]
    asked = seen["fresh"] + seen["kept"] + seen["failed"]
    return name, asked, seen["failed"], swapping, quiet, sorted(seconds)[len(seconds) // 2]


def rollway(folder: Path) -> Row:
    command = json.dumps(f"{sys.executable} -m gunicorn -c gunicorn_conf.py")
    settings = f'app = "bench"\n[process.web]\ncommand = {command}\nlisten = ["0.0.0.0:9701"]\n'
    files = {"rollway.toml": settings + '[process.web.probe.readiness]\nhttp = "/"\nperiod = "200ms"\n', **PROGRAMS}
    source = repository(folder / "r", {"v1": {**files, "VERSION": "1"}, "v2": {"VERSION": "2"}})
    with fleet(folder, hosts=1) as one:
        for version in ("v1", "v2"):
            one.rollway("build", str(source), "--ref", version)
            words = ("--ref", version, "--path", str(source), "--name", version)
            one.rollway("release", "create", "bench", "local", *words)
        one.rollway("swap", "bench", "local", "v1")
        return measure(
            "rollway",
            9701,
            one.address(),
            lambda number: one.rollway("swap", "bench", "local", ("v2", "v1")[number % 2]),
        )


def gunicorn_hup(folder: Path) -> Row:
    for name, text in {**PROGRAMS, "VERSION": "1"}.items():
        (folder / name).write_text(text)
    address, port = "127.0.0.1", 9702
    environment = {**os.environ, "ROLLWAY_DRAIN_FILE": str(folder / "never")}
    words = [sys.executable, "-m", "gunicorn", "-c", "gunicorn_conf.py", "--bind", f"{address}:{port}"]
    with subprocess.Popen(words, cwd=folder, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_for("gunicorn listens", lambda: _accepts(address, port))

        def hang_up(number: int) -> None:
            before = {child.pid for child in psutil.Process(process.pid).children()}
            (folder / "VERSION").write_text(str(2 - number % 2))
            process.send_signal(signal.SIGHUP)
            wait_for(
                "new workers alone",
                lambda: (
                    bool(now := {child.pid for child in psutil.Process(process.pid).children()}) and not now & before
                ),
            )

        try:
            return measure("gunicorn HUP", port, address, hang_up)
        finally:
            process.terminate()


def _accepts(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


def main() -> None:
    rows = []
    for run in (rollway, gunicorn_hup):
        with tempfile.TemporaryDirectory(prefix="rollway-bench-") as folder:
            rows.append(run(Path(folder)))
    print(f"\n{SWAPS} swaps each under load     requests  failed  p99 swapping / quiet  seconds per swap")
    for name, asked, failed, swapping, quiet, seconds in rows:
        ratio = f"{swapping:.1f} / {quiet:.1f} ms = {swapping / quiet:.2f} x"
        print(f"{name:<28}{asked:>10}{failed:>8}  {ratio}{seconds:>14.1f}")


if __name__ == "__main__":
    main()
