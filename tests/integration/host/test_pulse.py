"""The agent's own pulse: the watchdog hears it as long as the loop turns, the lag of the loop is measured and told."""

import os
import select
import signal
import socket
from pathlib import Path

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.host.metrics import TYPES_MAX, Metrics
from agent.model.ids import AppName, EnvironmentName, ProcessName
from agent.model.roles import AgentSettings
from agent.supervisor.launchable import InstanceKey
from agent.supervisor.supervisor import Supervisor
from agent.telemetry.output import Stdout
from agent.telemetry.pulse import Pulse
from tests.integration.host.test_process import DEADLINE_S, agent, chosen, deployed

__all__ = ["chosen", "deployed"]

WATCHDOG_US = 400_000


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """What the service manager hears."""
    hears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    hears.bind(str(tmp_path / "notify"))
    hears.settimeout(DEADLINE_S)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    return hears


def heard(manager: socket.socket) -> list[bytes]:
    found = []
    while select.select([manager], [], [], 0)[0]:
        found.append(manager.recv(4096))
    return found


@pytest.mark.anyio
async def test_a_loop_that_is_stuck_says_nothing(manager: socket.socket) -> None:
    """The watchdog is told from the loop itself: while it is stuck nothing is said, afterwards the lag is known."""
    pulse = Pulse(lambda: "well", {"WATCHDOG_USEC": str(WATCHDOG_US), "WATCHDOG_PID": str(os.getpid())})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pulse.run)
        with anyio.fail_after(DEADLINE_S):
            await anyio.wait_readable(manager)
            assert heard(manager) == [b"WATCHDOG=1", b"STATUS=well"]
            await anyio.wait_readable(manager)
        assert heard(manager) == [b"WATCHDOG=1"]
        stuck = select.select([manager], [], [], 3 * WATCHDOG_US / 1_000_000)
        assert stuck[0] == []
        with anyio.fail_after(DEADLINE_S):
            await anyio.wait_readable(manager)
        tasks.cancel_scope.cancel()
    (family,) = pulse.lag.collect()
    assert max(sample.value for sample in family.samples if sample.name.endswith("_sum")) > WATCHDOG_US / 1_000_000


OTHERS = {
    "no interval": {},
    "another process's": {"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "1"},
    "no number": {"WATCHDOG_USEC": "soon"},
}


@pytest.mark.anyio
@pytest.mark.parametrize("environ", OTHERS.values(), ids=OTHERS)
async def test_without_a_watchdog_of_its_own_only_its_status_is_told(
    manager: socket.socket, environ: dict[str, str]
) -> None:
    """Who is not asked for a sign of life gives none."""
    beats, said = 0, list[bytes]()

    def status() -> str:
        nonlocal beats
        beats += 1
        return "well" if beats < 3 else "better"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Pulse(status, environ).run)
        with anyio.fail_after(DEADLINE_S):
            while beats < 3:
                await anyio.wait_readable(manager)
                said = heard(manager)
        tasks.cancel_scope.cancel()
    assert said == [b"STATUS=better"]


def test_the_agent_speaks_to_the_watchdog_and_says_what_it_does(
    chosen: AgentSettings, deployed: int, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sign of life again and again, one line of what it does, and, ended by the watchdog, where it was."""
    monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_US))
    with agent(chosen) as started:
        said: list[bytes] = []
        while b"STATUS=instances: 1 ready; without a coordinator" not in said or said.count(b"WATCHDOG=1") < 3:
            said.append(manager.recv(4096))
        assert said.index(b"READY=1") < said.index(b"WATCHDOG=1")
        pid = started.until("started")["pid"]
        os.kill(started.process.pid, signal.SIGABRT)
        assert started.process.wait(DEADLINE_S) == -signal.SIGABRT
        told = started.process.stderr.read().decode()
        assert "Fatal Python error: Aborted" in told
        assert "agent/host/main.py" in told
        os.kill(int(str(pid)), signal.SIGKILL)


def test_metrics_are_what_prometheus_reads(chosen: AgentSettings, deployed: int) -> None:
    """/metrics tells of instances, restarts, stranded connections, the link, the log, the loop, memory and files."""
    with agent(chosen) as started:
        started.until("ready")
        status, text = started.ask("/metrics")
        os.kill(started.process.pid, signal.SIGINT)
        started.until("drained")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert status == 200
    assert families.keys() >= {
        *(f"rollway_{name}" for name in ("build_info", "instances", "restarts", "stranded_connections", "link_up")),
        *(f"rollway_log_{name}" for name in ("records", "bytes", "records_lost")),
        *("rollway_loop_lag_seconds", "rollway_types_left_out"),
        *("process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds"),
    }
    states = {sample.labels["state"]: sample.value for sample in families["rollway_instances"].samples}
    assert (states.pop("ready"), set(states.values())) == (1, {0})
    assert families["process_resident_memory_bytes"].samples[0].value > 10_000_000


def test_series_are_bounded(tmp_path: Path) -> None:
    """However many process types a host has had, no more than so many are told, and how many are not."""
    supervisor = Supervisor(run_dir=tmp_path, outlet=Stdout(), on_change=lambda *_: None, on_event=lambda *_: None)
    metrics = Metrics(supervisor, Stdout(), lambda: True)
    for number in range(TYPES_MAX + 7):
        key = InstanceKey(AppName(f"app{number}"), EnvironmentName("e"), ProcessName("web"), 1)
        metrics.heard(key, "stranded connections were closed", {"connections": 2})
        metrics.heard(key, "started", {"pid": 1, "launch": 1})
    told = {metric.name: metric.samples for metric in metrics.collect()}
    assert {sample.value for sample in told["rollway_stranded_connections"]} == {2}
    assert len(told["rollway_stranded_connections"]) == TYPES_MAX
    assert told["rollway_restarts"] == []
    assert [sample.value for sample in told["rollway_types_left_out"]] == [7]
