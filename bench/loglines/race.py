"""One run: a contestant on its own core, its program and whoever reads on another, from the word to the last line."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
from msgspec import Struct

from bench.loglines.contestants import Contestant
from bench.loglines.numbers import Tally
from bench.peers import gauge

WRITER: Final = Path(__file__).parent / "writer.py"
_READY_S: Final = 30.0
_SETTLE_S: Final = 0.5
_SAMPLE_S: Final = 0.25
_STALL_S: Final = 30.0
_LOOK_S: Final = 0.002
_TAIL_BYTES: Final = 1 << 17
_READ_BYTES: Final = 1 << 20


class Run(Struct, kw_only=True):
    """What one run gave; bytes of memory before the first line, at most and after the last."""

    lines: int
    arrived: int
    lost: int
    wrong: int
    wall_s: float
    cpu_s: float
    start: gauge.Memory
    most: gauge.Memory
    end: gauge.Memory

    @property
    def per_cpu_s(self) -> float:
        return self.arrived / self.cpu_s

    @property
    def per_wall_s(self) -> float:
        return self.arrived / self.wall_s


def words_of_writer(folder: Path, lines: int, kind: str, core: int) -> list[str]:
    """The program's command line; its FIFO is made here."""
    go = folder / "go"
    os.mkfifo(go)
    return [sys.executable, str(WRITER), str(go), str(lines), kind, str(core)]


class _Watch:
    """Looks at the contestant's memory now and then, and ends a run in which nothing comes any more."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self.most = gauge.memory(pids)
        self._next_s = time.monotonic() + _SAMPLE_S
        self._came_s = time.monotonic()

    def came(self) -> None:
        self._came_s = time.monotonic()

    def goes_on(self) -> bool:
        now_s = time.monotonic()
        if now_s > self._next_s:
            self.most = max(self.most, gauge.memory(self._pids), key=sum_of)
            self._next_s = now_s + _SAMPLE_S
        return now_s - self._came_s < _STALL_S


def sum_of(memory: gauge.Memory) -> int:
    """What counts against the machine: shared pages by share, and files in memory."""
    return memory.pss + memory.memfd


def run(contestant: Contestant, folder: Path, lines: int, core: int) -> Run:
    """Start it, give the word once all is quiet, and count what comes out. Raises AssertionError where it does not."""
    with _started(contestant, folder, core) as process:
        word = _word(folder / "go", process)
        time.sleep(_SETTLE_S)
        pids = gauge.tree(process.pid, str(WRITER))
        tally, watch = Tally(), _Watch(pids)
        start, cpu_ns, begun_s = watch.most, gauge.cpu_ns(pids), time.monotonic()
        os.write(word, b"!")
        os.close(word)
        if contestant.files is None:
            ended_s = _read_pipe(process, tally, watch, lines)
        else:
            ended_s = _await_files(contestant.files, watch, lines)
        cpu_ns = gauge.cpu_ns(pids) - cpu_ns
        end = gauge.memory(pids)
    if contestant.files is not None:
        _read_files(contestant.files(), tally)
    return Run(
        lines=lines,
        arrived=tally.next - tally.lost,
        lost=tally.lost + lines - tally.next,
        wrong=tally.wrong,
        wall_s=ended_s - begun_s,
        cpu_s=cpu_ns / 1e9,
        start=start,
        most=max(watch.most, end, key=sum_of),
        end=end,
    )


@contextmanager
def _started(contestant: Contestant, folder: Path, core: int) -> Iterator[subprocess.Popen[bytes]]:
    command = ["taskset", "-c", str(core), *contestant.command]
    with (folder / "said").open("ab") as said:
        out = subprocess.PIPE if contestant.files is None else said
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | contestant.env, stdout=out, stderr=said, start_new_session=True
        )
    try:
        yield process
    finally:
        _stop(process, contestant)


def _stop(process: subprocess.Popen[bytes], contestant: Contestant) -> None:
    """Ask it to end, read what it still says, then end what is left of it: all of that was started here."""
    left = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGINT if contestant.stop_by_interrupt else signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=15)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()


def _word(go: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait until the program waits for the word."""
    end_s = time.monotonic() + _READY_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            return os.open(go, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it yet
            time.sleep(_LOOK_S)
    raise AssertionError(f"its program did not start: {process.args!r}")


def _read_pipe(process: subprocess.Popen[bytes], tally: Tally, watch: _Watch, lines: int) -> float:
    """Read until all lines are there or nothing comes any more; when the last bytes came."""
    assert process.stdout is not None
    pipe, readable = process.stdout.fileno(), select.poll()  # select(2) knows no number above 1023
    readable.register(pipe, select.POLLIN)
    chunks: list[bytes] = []
    taken, came_s = 0, time.monotonic()
    while tally.next < lines and watch.goes_on():
        if readable.poll(_LOOK_S * 1_000):
            chunks.append(os.read(pipe, _READ_BYTES))
            taken, came_s = taken + len(chunks[-1]), time.monotonic()
            watch.came()
            if len(chunks[-1]) > 0 and taken < _READ_BYTES:
                continue
        tally.feed(b"".join(chunks))
        if chunks and not chunks[-1]:
            break
        chunks, taken = [], 0
    return came_s


def _await_files(files: Callable[[], list[Path]], watch: _Watch, lines: int) -> float:
    """Wait until the last line is in a file or nothing comes any more; when that was seen."""
    last, size = b"L%010d " % (lines - 1), 0
    while watch.goes_on():
        tails = [_tail(path) for path in files()[-2:]]
        if any(last in tail for tail in tails):
            break
        if (now := sum(path.stat().st_size for path in files() if path.exists())) != size:
            size = now
            watch.came()
        time.sleep(_LOOK_S)
    return time.monotonic()


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read()
    except FileNotFoundError:  # rotated just now, or not there yet
        return b""


def _read_files(files: list[Path], tally: Tally) -> None:
    """Count what the files hold, and remove them: they are in memory."""
    for path in files:
        with path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                tally.feed(data)
        path.unlink()
    tally.end()
