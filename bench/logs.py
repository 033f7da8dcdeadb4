"""Log lines through a supervisor: numbered 100-byte lines of a child, until each is in the sink; peers in the same run.

Rollway wraps each line as JSON and gives it to a reader of its stdout (the supervisor and the output of the agent, in a
process of their own); svlogd and s6-log prefix a time and write files; supervisord, circus and pm2 copy into files. All
files lie on tmpfs. The supervisor has one core, child and reader the other. Told: millions of lines per second of the
supervisor's own CPU time and of the clock, lines that did not arrive, resident memory at the end. `--lines N` (default
2,000,000); `--soak N`: Rollway alone, memory told on the way. Peers are installed below ~/.cache/rollway-bench.
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
CACHE = Path.home() / ".cache" / "rollway-bench"
LINE_BYTES = 100
SUPERVISOR, REST = "0", "1"
GIVE_UP_S = 120


@dataclass(frozen=True)
class Row:
    name: str
    version: str
    cpu_s: float
    wall_s: float
    lines: int
    lost: int
    rss_mib: float

    @property
    def by_cpu(self) -> float:
        return (self.lines - self.lost) / self.cpu_s / 1e6 if self.cpu_s else 0

    @property
    def by_clock(self) -> float:
        return (self.lines - self.lost) / self.wall_s / 1e6


def child(source: Path) -> str:
    """What writes the lines, on the other core."""
    return f"taskset -c {REST} cat {source}"


def pinned(*words: str) -> list[str]:
    return ["taskset", "-c", SUPERVISOR, *words]


def make_lines(path: Path, lines: int) -> None:
    filler = b"x" * (LINE_BYTES - 12)
    with path.open("wb") as file:
        for start in range(0, lines, 10_000):
            stop = min(start + 10_000, lines)
            file.write(b"".join(b"%010d %s\n" % (number, filler) for number in range(start, stop)))


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def watch(pid: int, arrived: Callable[[], int], lines: int) -> tuple[float, float, int, float]:
    """From now until all is there, or nothing more comes: CPU, clock, lines that came, memory."""
    before, begun = cpu_s(pid), time.perf_counter()
    came, since = 0, begun
    while came < lines and time.perf_counter() - since < GIVE_UP_S / 12:
        time.sleep(0.01)
        if (now := arrived()) != came:
            came, since = now, time.perf_counter()
    return cpu_s(pid) - before, since - begun, came, psutil.Process(pid).memory_info().rss / (1 << 20)


def in_files(folder: Path) -> Callable[[], int]:
    """Lines in all files of a folder, told from their sizes when every line has the same length, else counted."""
    counted: dict[Path, tuple[int, int]] = {}

    def count() -> int:
        for path in folder.rglob("*"):
            if path.is_file() and path.name not in ("lock", "state"):
                size, lines = counted.get(path, (0, 0))
                if path.stat().st_size > size:
                    with path.open("rb") as file:
                        file.seek(size)
                        chunk = file.read()
                    counted[path] = size + len(chunk), lines + chunk.count(b"\n")
        return sum(lines for _, lines in counted.values())

    return count


def rollway(folder: Path, source: Path, lines: int) -> Row:
    reading, writing = os.pipe()
    counter = subprocess.Popen(
        ["taskset", "-c", REST, sys.executable, __file__, "--count"], stdin=reading, stdout=subprocess.PIPE, text=True
    )
    words = pinned(sys.executable, __file__, "--supervise", child(source), "--folder", str(folder))
    supervisor = subprocess.Popen(words, stdout=writing, env={**os.environ, "PYTHONPATH": str(ROOT), **malloc()})
    os.close(reading)
    os.close(writing)
    assert counter.stdout is not None
    came = 0

    def arrived() -> int:
        nonlocal came
        os.kill(counter.pid, signal.SIGUSR1)
        assert counter.stdout is not None
        came = int(counter.stdout.readline())
        return came

    assert counter.stdout.readline() == "first\n"
    found = watch(supervisor.pid, arrived, lines)
    supervisor.kill()
    supervisor.wait()
    counter.kill()
    return Row("rollway", "JSON", found[0], found[1], lines, lines - found[2], found[3])


def malloc() -> dict[str, str]:
    """As the agent's unit has it."""
    unit = (ROOT / "systemd" / "rollway-agent.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("Environment=")]
    return dict(pair.split("=") for pair in line.removeprefix("Environment=").split())


def piped(name: str, version: str, *words: str) -> Callable[[Path, Path, int], Row]:
    """A logger that reads its standard input."""

    def run(folder: Path, source: Path, lines: int) -> Row:
        logs = folder / "logs"
        logs.mkdir()
        (logs / "config").write_text("s99999999\nn0\n")
        reading, writing = os.pipe()
        logger = subprocess.Popen(pinned(*words, str(logs)), stdin=reading, stderr=subprocess.DEVNULL)
        os.close(reading)
        with subprocess.Popen(["taskset", "-c", REST, "cat", str(source)], stdout=writing):
            found = watch(logger.pid, in_files(logs), lines)
        os.close(writing)
        logger.wait(10)
        return Row(name, version, found[0], found[1], lines, lines - min(found[2], lines), found[3])

    return run


def supervisord(folder: Path, source: Path, lines: int) -> Row:
    logs = folder / "logs"
    logs.mkdir()
    settings = folder / "supervisord.conf"
    settings.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/main.log\npidfile={folder}/pid\n[program:lines]\n"
        f"command={child(source)}\nautorestart=false\nstartsecs=0\nstdout_logfile={logs}/out\n"
        "stdout_logfile_maxbytes=0\n"
    )
    program = CACHE / "venv" / "bin" / "supervisord"
    process = subprocess.Popen(pinned(str(program), "-c", str(settings)), stdout=subprocess.DEVNULL)
    found = watch(process.pid, in_files(logs), lines)
    process.terminate()
    process.wait(20)
    return Row("supervisord", said(program, "--version"), found[0], found[1], lines, lines - found[2], found[3])


def circus(folder: Path, source: Path, lines: int) -> Row:
    logs = folder / "logs"
    logs.mkdir()
    settings = folder / "circus.ini"
    settings.write_text(
        f"[circus]\nendpoint=ipc://{folder}/e\npubsub_endpoint=ipc://{folder}/p\nstats_endpoint=ipc://{folder}/s\n"
        f"[watcher:lines]\ncmd={child(source)}\nrespawn=false\ncopy_env=true\nstdout_stream.class=FileStream\n"
        f"stdout_stream.filename={logs}/out\n"
    )
    program = CACHE / "venv" / "bin" / "circusd"
    process = subprocess.Popen(
        pinned(str(program), str(settings)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    found = watch(process.pid, in_files(logs), lines)
    process.terminate()
    process.wait(20)
    return Row("circus", said(program, "--version"), found[0], found[1], lines, lines - min(found[2], lines), found[3])


def pm2(folder: Path, source: Path, lines: int) -> Row:
    program = CACHE / "node_modules" / ".bin" / "pm2"
    logs = folder / "logs"
    logs.mkdir()
    script = folder / "lines.sh"
    script.write_text(f"#!/bin/sh\nexec {child(source)}\n")
    script.chmod(0o755)
    environment = {**os.environ, "PM2_HOME": str(folder / "home")}

    def ask(*words: str) -> None:
        subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

    ask(*pinned(str(program), "ping"))
    pid = int((folder / "home" / "pm2.pid").read_text())
    words = ["start", str(script), "--no-autorestart", "--output", str(logs / "out"), "--log-type", "json"]
    subprocess.Popen([str(program), *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = watch(pid, in_files(logs), lines)
    ask(str(program), "kill")
    return Row("pm2", said(program, "--version"), found[0], found[1], lines, lines - min(found[2], lines), found[3])


def said(*words: str | Path) -> str:
    """The last word of what a program says of its version."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    text = (done.stdout + done.stderr).split()
    return text[-1] if text else "?"


def peers() -> Iterator[tuple[str, Callable[[Path, Path, int], Row]]]:
    """Install what is missing; a peer that cannot be had is said."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0 and not (shutil.which("svlogd") and shutil.which("s6-log")):
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "runit", "s6"],
            capture_output=True,
            check=False,
        )
    for name, words in {"runit svlogd": ("svlogd", "-t"), "s6-log": ("s6-log", "t")}.items():
        if shutil.which(words[0]):
            package = "runit" if "runit" in name else "s6"
            version = said("dpkg-query", "-W", "-f=${Version}", package)
            yield name, piped(name, version, *words)
        else:
            print(f"{name}: not to be had here", file=sys.stderr)
    if not (CACHE / "venv" / "bin" / "circusd").exists():
        subprocess.run([sys.executable, "-m", "venv", str(CACHE / "venv")], check=False)
        pip = [str(CACHE / "venv" / "bin" / "pip"), "install", "-q", "supervisor", "circus", "setuptools<80"]
        subprocess.run(pip, capture_output=True, check=False)
    if not (CACHE / "node_modules").exists() and shutil.which("npm"):
        subprocess.run(["npm", "install", "--silent", "pm2"], cwd=CACHE, capture_output=True, check=False)
    for name, run, program in (
        ("supervisord", supervisord, CACHE / "venv" / "bin" / "supervisord"),
        ("circus", circus, CACHE / "venv" / "bin" / "circusd"),
        ("pm2", pm2, CACHE / "node_modules" / ".bin" / "pm2"),
    ):
        if program.exists():
            yield name, run
        else:
            print(f"{name}: not to be had here", file=sys.stderr)


@contextmanager
def on_tmpfs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def show(rows: list[Row]) -> None:
    own = rows[0]
    lines = [
        "| | version | million lines per CPU second | per second | lost | MiB at the end | Rollway's ratio (CPU) |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.version} | {row.by_cpu:.2f} | {row.by_clock:.2f} | {row.lost} | {row.rss_mib:.0f} | "
        f"{own.by_cpu / row.by_cpu if row.by_cpu else 0:.2f}x |"
        for row in rows
    ]
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    text = f"{own.lines} lines of {LINE_BYTES} bytes; {machine}\n\n" + "\n".join(lines) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "logs.md").write_text(f"# bench/logs.py\n\n{text}")
    data = [{**row.__dict__, "by_cpu": round(row.by_cpu, 3), "by_clock": round(row.by_clock, 3)} for row in rows]
    (RESULTS / "logs.json").write_text(json.dumps(data, indent=1) + "\n")


def count() -> None:
    """Count the lines that come; told at SIGUSR1."""
    lines = 0

    def tell(*_: object) -> None:
        print(lines, flush=True)

    signal.signal(signal.SIGUSR1, tell)
    for number in itertools.count():
        chunk = os.read(0, 1 << 20)
        if number == 0:
            print("first", flush=True)
        if not chunk:
            return
        lines += chunk.count(b"\n")


def supervise(command: str, folder: Path) -> None:
    """The agent's supervisor and output, with one instance."""
    import anyio  # noqa: PLC0415 - for this role alone

    from agent.linux import spawn  # noqa: PLC0415
    from agent.model.assignment import ReleaseRef  # noqa: PLC0415
    from agent.model.ids import AppName, Digest, EnvironmentName, ProcessName, ReleaseName  # noqa: PLC0415
    from agent.model.process import ProcessType, RestartPolicy  # noqa: PLC0415
    from agent.supervisor.launchable import InstanceKey, Launchable  # noqa: PLC0415
    from agent.supervisor.supervisor import Supervisor  # noqa: PLC0415
    from agent.telemetry.output import Stdout  # noqa: PLC0415

    async def run() -> None:
        spawn.keep_own_fds()
        stdout = Stdout()
        supervisor = Supervisor(
            run_dir=folder / "run",
            outlet=stdout,
            on_change=lambda _app, _environment: None,
            on_event=lambda _key, _event, _details: None,
        )
        process = ProcessType(name=ProcessName("lines"), command=command, restart=RestartPolicy(policy="never"))
        key = InstanceKey(AppName("bench"), EnvironmentName("local"), process.name, 1)
        ref = ReleaseRef(name=ReleaseName("v1.0.0"), digest=Digest("sha256:" + "0" * 64))
        async with anyio.create_task_group() as tasks:
            await tasks.start(stdout.run)
            await tasks.start(supervisor.run)
            supervisor.launch(Launchable(key=key, release=ref, type=process, cwd="/", config={}))

    anyio.run(run, backend_options={"use_uvloop": True})


def soak(lines: int) -> None:
    """Rollway alone, on and on: resident memory and files in memory, told after each tenth."""
    with on_tmpfs() as folder:
        source = folder / "lines"
        make_lines(source, 1_000_000)
        times = lines // 1_000_000
        loop = folder / "again.sh"
        loop.write_text(f"for n in $(seq {times}); do cat {source}; done\n")
        words = pinned(sys.executable, __file__, "--supervise", f"taskset -c {REST} sh {loop}", "--folder", str(folder))
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT), **malloc()}
        ) as process:
            assert process.stdout is not None
            came, told, begun = 0, 0, time.perf_counter()
            while came < lines:
                came += os.read(process.stdout.fileno(), 1 << 20).count(b"\n")
                if came * 10 // lines > told:
                    told = came * 10 // lines
                    memory = psutil.Process(process.pid).memory_info()
                    rate = came / (time.perf_counter() - begun) / 1e6
                    print(f"{came:>12} lines: {memory.rss >> 20} MiB resident, {rate:.2f} million lines/s", flush=True)
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=2_000_000)
    parser.add_argument("--soak", type=int)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--supervise", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.count:
        count()
    elif asked.supervise:
        supervise(asked.supervise, asked.folder)
    elif asked.soak:
        soak(asked.soak)
    else:
        rows = []
        for _, run in (("rollway", rollway), *peers()):
            with on_tmpfs() as folder:
                source = folder / "lines"
                make_lines(source, asked.lines)
                rows.append(run(folder, source, asked.lines))
        show(rows)


if __name__ == "__main__":
    main()
