"""One contestant through one round: starts of several sizes, what it costs, a crash of all, restarts of one, a stop.

Instants are the children's own (their first instruction) or the kernel's (the end of a process, by pidfd); nothing is
polled for. Only what is measured by the clock of who kills, starts and asks to stop is taken here.
"""

import math
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
from msgspec import Struct

from bench.children.births import Birth, Births
from bench.children.contestants import Command
from bench.peers import gauge

START_WITHIN_S: Final = 60.0
BACK_WITHIN_S: Final = 30.0
STOPPED_WITHIN_S: Final = 20.0
SETTLE_S: Final = 1.0
AT_REST_S: Final = 10.0
"""So long after a start nothing is under way any more that belongs to it."""
IDLE_S: Final = 8.0
RESTARTS: Final = 40
RESTARTS_WITHIN_S: Final = 4.0
_PAUSE_S: Final = (0.02, 0.06)
"""Between two kills, so that none meets what the last one left to do, nor always the same beat of a clock."""

Prepare = Callable[[Path, list[str], int], Command]
"""A fresh folder, the child's command line, and how many: how the supervisor is started."""


class Round(Struct, kw_only=True):
    """What one round gave: seconds, bytes, and seconds of CPU a minute, by how many children there were."""

    start_s: dict[int, list[float]]
    memory: dict[int, int]
    idle_s_per_minute: float
    restart_s: list[float]
    crash_s: float
    stopped_s: float
    gone_s: float
    left: int
    """Children that outlived the stop."""


class Race:
    """Its contestants, children and folders below `top`."""

    def __init__(self, top: Path, child: Path, births: Births, sizes: tuple[int, int, int]) -> None:
        """`sizes`: one, some, many."""
        self._top = top
        self._child = child
        self._births = births
        self._sizes = sizes

    def round(self, prepare: Prepare) -> Round:
        one, some, many = self._sizes
        with self._started(prepare, one) as alone:
            memory_one = alone.memory()
        with self._started(prepare, some) as first:
            memory_some, crash_s = first.memory(), first.crash()
            stopped_s, gone_s, left = first.stop()
        with self._started(prepare, some) as second:
            restart_s = second.restarts()
        with self._started(prepare, many) as crowd:
            memory_many, idle_s = crowd.memory(), crowd.idle()
        return Round(
            start_s={one: [alone.start_s], some: [first.start_s, second.start_s], many: [crowd.start_s]},
            memory={one: memory_one, some: memory_some, many: memory_many},
            idle_s_per_minute=idle_s,
            restart_s=restart_s,
            crash_s=crash_s,
            stopped_s=stopped_s,
            gone_s=gone_s,
            left=left,
        )

    @contextmanager
    def _started(self, prepare: Prepare, count: int) -> Iterator["Running"]:
        folder = self._top / f"run{time.monotonic_ns()}"
        folder.mkdir()
        command = prepare(folder, [str(self._child), str(self._births.path)], count)
        with ExitStack() as stack, (folder / "said").open("wb") as said:
            reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=said)
            stack.callback(reader.wait)
            self._births.forget()
            asked_ns = time.monotonic_ns()
            process = subprocess.Popen(
                command.words,
                cwd=folder,
                env=os.environ | command.env,
                stdin=subprocess.DEVNULL,
                stdout=reader.stdin,
                stderr=reader.stdin,
                start_new_session=True,
            )
            if reader.stdin is not None:
                reader.stdin.close()
            stack.callback(self._end, process, command.stop)
            born = self._births.take(count, START_WITHIN_S)
            assert len(born) == count, (
                f"{len(born)} of {count}:\n{(folder / 'said').read_text(errors='replace')[-2000:]}"
            )
            start_s = (born[-1].at_ns - asked_ns) / 1e9
            yield Running(process, command.stop, born, start_s=start_s, births=self._births, child=self._child)

    def _end(self, process: subprocess.Popen[bytes], stop: signal.Signals) -> None:
        """Leave nothing: whatever is of the supervisor, then what runs our child. All of that was started here."""
        process.send_signal(stop)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOPPED_WITHIN_S)
        with suppress(psutil.NoSuchProcess):
            for one in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        process.wait()
        while left := [one for one in psutil.process_iter(["exe", "cmdline"]) if self._is_ours(one)]:
            for one in left:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(left)

    def _is_ours(self, process: psutil.Process) -> bool:
        """A child, or what names our folder: with runit and s6 the watcher of each outlives the first process."""
        words = process.info["cmdline"] or ()
        named = process.info["exe"] == str(self._child) or any(str(self._top) in word for word in words)
        return named and process.pid != os.getpid()


class Running:
    """A supervisor all of whose children have started."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        stop: signal.Signals,
        born: Sequence[Birth],
        *,
        start_s: float,
        births: Births,
        child: Path,
    ) -> None:
        self.start_s: Final = start_s
        self._process = process
        self._stop = stop
        self._births = births
        self._child = child
        self._children = {birth.pid for birth in born}
        time.sleep(SETTLE_S)

    def memory(self) -> int:
        """Of the supervisor and its helpers, in bytes."""
        return gauge.memory_alone(self._own())

    def idle(self) -> float:
        """Seconds of CPU a minute while nothing happens."""
        time.sleep(AT_REST_S)
        own = self._own()
        cpu_ns, begun_ns = gauge.cpu_ns(own), time.monotonic_ns()
        time.sleep(IDLE_S)
        return (gauge.cpu_ns(own) - cpu_ns) / (time.monotonic_ns() - begun_ns) * 60

    def crash(self) -> float:
        """All die at once: seconds until all are back."""
        begun_ns, count = time.monotonic_ns(), len(self._children)
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        back = self._births.take(count, BACK_WITHIN_S)
        if len(back) < count:
            return math.inf
        self._children = {birth.pid for birth in back}
        time.sleep(SETTLE_S)
        return (back[-1].at_ns - begun_ns) / 1e9

    def restarts(self) -> list[float]:
        """One after the other dies, each for the first time: seconds until it is back."""
        took: list[float] = []
        end_s = time.monotonic() + RESTARTS_WITHIN_S
        for pid in random.sample(sorted(self._children), min(RESTARTS, len(self._children))):
            begun_ns = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            back = self._births.take(1, BACK_WITHIN_S)
            took.append((back[0].at_ns - begun_ns) / 1e9 if back else math.inf)
            if time.monotonic() > end_s:
                break
            time.sleep(random.uniform(*_PAUSE_S))  # noqa: S311 - no secret
        return took

    def stop(self) -> tuple[float, float, int]:
        """Ask it to end: seconds until its children are gone, and until it is gone as well; how many live on."""
        with ExitStack() as stack:
            poll, ends = select.poll(), dict[int, int]()
            for pid in (self._process.pid, *self._children):
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                poll.register(handle, select.POLLIN)
                ends[handle] = 0
            first = next(iter(ends))
            begun_ns = time.monotonic_ns()
            self._process.send_signal(self._stop)
            left = set(ends)
            while left and (ended := poll.poll(STOPPED_WITHIN_S * 1_000)):
                for handle, _ in ended:
                    ends[handle] = time.monotonic_ns()
                    poll.unregister(handle)
                    left.discard(handle)
        alive = len(left - {first})
        stopped_s = math.inf if alive else (max(ends[one] for one in ends if one != first) - begun_ns) / 1e9
        gone_s = math.inf if first in left else (ends[first] - begun_ns) / 1e9
        return stopped_s, gone_s, alive

    def _own(self) -> list[int]:
        return gauge.tree(self._process.pid, str(self._child))
