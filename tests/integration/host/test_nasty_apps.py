"""Whatever apps do, and though nobody reads what it writes, the agent answers, stays small and does its work."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import anyio
import psutil
import pytest
from msgspec.structs import replace

from agent.model.ids import ProcessName
from agent.model.process import AppSpec, HttpCheck, Probe, Probes, ProcessType, StopPolicy
from agent.model.roles import AgentSettings
from tests.integration.host.rig import running
from tests.integration.host.source import APP, PYTHON, FolderSource, Wish, free_port, web
from tests.integration.host.test_process import DEADLINE_S, HOST, Agent, agent, chosen
from tests.integration.ready import is_writable

__all__ = ["chosen"]

NASTY: Final = (Path(__file__).parent / "apps" / "nasty.py").read_text()
TARPITS: Final = ("mute", "headers", "body", "drip")
MIB: Final = 1 << 20
FLOOD_BYTES: Final = 256 * MIB
GROWS_AT_MOST: Final = 48 * MIB
ANSWERS_WITHIN_S: Final = 2.0
READY: Final = Probe(check=HttpCheck(path="/"), period_ms=100, timeout_ms=1_000, failures=2)


def nasty(kind: str, switch: Path) -> ProcessType:
    listens = kind not in ("flood", "endless")
    return replace(
        web(f"{HOST}:{free_port()}", count=1),
        name=ProcessName(kind),
        command=f"{PYTHON} nasty.py {kind} {switch}",
        listen=(f"{HOST}:{free_port()}",) if listens else (),
        probes=Probes(readiness=READY) if listens else Probes(),
        stop=StopPolicy(linger_ms=0, grace_ms=5_000),
    )


def deploy(folder: Path, *processes: ProcessType) -> None:
    """A state folder in which these are assigned and lie ready."""
    (folder / "source").mkdir()
    source = FolderSource(folder / "source")
    ref = source.add("v1", AppSpec(app=APP, processes=processes), files={"nasty.py": NASTY})

    async def deployed() -> None:
        async with running(folder, source) as rig:
            reached = await rig.until_done(Wish().for_(ref))
            assert reached.state == "done", reached.reason

    anyio.run(deployed)


def instances(started: Agent) -> dict[str, str]:
    """The state of each process type's one instance, as /metrics tells it."""
    found = {}
    for line in started.ask("/metrics")[1].splitlines():
        if line.startswith("rollway_instances{") and line.endswith(" 1.0"):
            labels = dict(pair.split("=") for pair in line[line.index("{") + 1 : line.index("}")].split(","))
            found[labels["process"].strip('"')] = labels["state"].strip('"')
    return found


def until(what: str, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, f"not so within {DEADLINE_S} s: {what}"


def size_bytes(started: Agent) -> int:
    """The agent's memory, and the files in memory that it holds, which are no part of its RSS."""
    found = int(psutil.Process(started.process.pid).memory_info().rss)
    for fd in Path(f"/proc/{started.process.pid}/fd").iterdir():
        try:
            if str(fd.readlink()).startswith("/memfd:"):
                found += fd.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return found


class Reader:
    """Reads what the agent writes, and counts it."""

    def __init__(self, started: Agent) -> None:
        self.count = 0
        self._fd = started.process.stdout.fileno()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while chunk := os.read(self._fd, MIB):
            self.count += len(chunk)


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """Instances outlive their agent: those of a test that failed are ended here."""
    yield
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(word.startswith(str(tmp_path)) for word in process.cmdline()):
                process.kill()


def drained(started: Agent) -> None:
    os.kill(started.process.pid, signal.SIGINT)
    assert started.process.wait(DEADLINE_S) == 0


def test_floods_and_tarpits_leave_the_agent_alive_and_small(chosen: AgentSettings, tmp_path: Path) -> None:
    """Two apps write as fast as they can, one of them a line without end; four answer probes never or without end.

    The agent answers at once all the time, its memory is bounded, and each probe comes to its verdict.
    """
    switch = tmp_path / "switch"
    deploy(tmp_path, *(nasty(kind, switch) for kind in ("flood", "endless", *TARPITS)))
    with agent(chosen) as started:
        started.until("agent started")
        reader = Reader(started)
        until("all are ready", lambda: set(instances(started).values()) == {"ready"})
        before, size_before = reader.count, size_bytes(started)
        switch.touch()
        slowest_s, largest = 0.0, 0
        expected = dict.fromkeys(("flood", "endless", "body"), "ready") | dict.fromkeys(
            ("mute", "headers", "drip"), "unready"
        )

        def endured() -> bool:
            nonlocal slowest_s, largest
            asked_s = time.monotonic()
            assert started.ask("/livez") == (200, "ok\n")
            slowest_s = max(slowest_s, time.monotonic() - asked_s)
            largest = max(largest, size_bytes(started))
            return reader.count - before >= FLOOD_BYTES and instances(started) == expected

        until("the floods have come through and every probe has its verdict", endured)
        assert slowest_s < ANSWERS_WITHIN_S
        assert largest - size_before < GROWS_AT_MOST
        drained(started)


def test_an_output_that_nobody_reads_delays_no_probe(chosen: AgentSettings, tmp_path: Path) -> None:
    """While its stdout is full and stays so, the agent still sees who is ready, and restarts who ends."""
    switch, busy = tmp_path / "switch", tmp_path / "busy"
    deploy(tmp_path, nasty("flood", switch), nasty("busy", busy))
    with agent(chosen) as started:
        started.until("agent started")
        until("the app is ready", lambda: started.ask("/apps/shop/readyz")[0] == 200)
        switch.touch()
        until("its output is full", lambda: is_full(started))
        size_before = size_bytes(started)
        busy.touch()
        until("it is seen to be busy", lambda: started.ask("/apps/shop/readyz")[0] == 503)
        busy.unlink()
        until("it is seen to be ready", lambda: started.ask("/apps/shop/readyz")[0] == 200)
        (child,) = (one for one in psutil.Process(started.process.pid).children() if "busy" in one.cmdline())
        child.kill()
        until("it was restarted", lambda: 'process="busy",slot="1"} 1.0' in restarts(started))
        until("it is ready again", lambda: started.ask("/apps/shop/readyz")[0] == 200)
        assert is_full(started)
        assert size_bytes(started) - size_before < GROWS_AT_MOST
        Reader(started)
        drained(started)


def is_full(started: Agent) -> bool:
    """Whether nothing more can be written to its stdout."""
    writing = os.open(f"/proc/{started.process.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
    try:
        return not is_writable(writing)
    finally:
        os.close(writing)


def restarts(started: Agent) -> str:
    return "\n".join(
        line for line in started.ask("/metrics")[1].splitlines() if line.startswith("rollway_instance_restarts_total{")
    )
