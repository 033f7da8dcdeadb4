"""The agent as a process of its own: started, asked, stopped and killed from outside."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import msgspec
import psutil
import pytest
import trustme
from msgspec.structs import replace
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from agent.model.ids import ProcessName
from agent.model.process import AppSpec, ProcessType
from agent.model.roles import AgentSettings, TlsFiles
from tests.integration.host.rig import running, settings
from tests.integration.host.source import APP, FolderSource, Wish, free_port, web
from tests.integration.ready import is_readable

DEADLINE_S = 30
HOST = "127.0.0.1"
START = "import sys, msgspec; from agent.host.main import run; from agent.model.roles import AgentSettings as S; "
START += "run(msgspec.json.decode(sys.argv[1], type=S))"


@pytest.fixture
def chosen(tmp_path: Path) -> AgentSettings:
    """Settings with certificates, with a free port for health, and with a coordinator where nobody listens."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = ca.issue_cert("h1")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = TlsFiles(**{name: str(tmp_path / f"{file}.pem") for name, file in FILES.items()})
    asked, checked = (f"{HOST}:{free_port()}",), (f"{HOST}:{free_port()}",)
    return replace(settings(tmp_path), tls=files, http_listen=asked, agent_check=checked)


FILES = {"ca": "ca", "certificate": "cert", "key": "key"}


class Agent:
    """A started agent; its events are read as they come."""

    def __init__(self, chosen: AgentSettings, first_fd: int = 0, prelude: str = "", **more: object) -> None:
        handed_over = ["/bin/sh", "-c", f'exec 3</proc/self/fd/{first_fd}; export LISTEN_PID=$$; exec "$@"', "sh"]
        words = [sys.executable, "-c", prelude + START, msgspec.json.encode(chosen).decode()]
        words = [*handed_over, *words] if first_fd else words
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)  # type: ignore[call-overload]
        self._port = int(chosen.http_listen[0].rpartition(":")[2])
        self.seen: list[dict[str, object]] = []

    def until(self, event: str) -> dict[str, object]:
        """Read events up to the first one called `event`; at the deadline kill the agent and show what came."""
        deadline = threading.Timer(DEADLINE_S, self.process.kill)
        deadline.start()
        try:
            for line in self.process.stdout:
                self.seen.append(json.loads(line))
                if self.seen[-1].get("event") == event:
                    return self.seen[-1]
        finally:
            deadline.cancel()
        raise AssertionError(f"ended without {event!r}: {self.seen[-5:]} {self.process.stderr.read().decode()[-2000:]}")

    def has_told(self, event: str) -> None:
        """Read events up to `event`, unless it was read before."""
        if all(one.get("event") != event for one in self.seen):
            self.until(event)

    def ask(self, path: str) -> tuple[int, str]:
        client = http.client.HTTPConnection(HOST, self._port, timeout=DEADLINE_S)
        client.request("GET", path)
        answer = client.getresponse()
        return answer.status, answer.read().decode()


@contextmanager
def agent(chosen: AgentSettings, first_fd: int = 0, prelude: str = "", **more: object) -> Iterator[Agent]:
    started = Agent(chosen, first_fd, prelude, **more)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


@pytest.fixture
def deployed(tmp_path: Path) -> int:
    """A state folder in which v1 of the sample app is assigned and lies ready; the port of its web type."""
    (tmp_path / "source").mkdir()
    source, port = FolderSource(tmp_path / "source"), free_port()
    ref = source.add("v1", AppSpec(app=APP, processes=(web(f"{HOST}:{port}", count=1),)))

    async def deploy() -> None:
        async with running(tmp_path, source) as rig:
            assert (await rig.until_done(Wish().for_(ref))).state == "done"

    anyio.run(deploy)
    return port


def release_at(port: int) -> str:
    client = http.client.HTTPConnection(HOST, port, timeout=DEADLINE_S)
    client.request("GET", "/", headers={"Connection": "close"})
    found: str = json.load(client.getresponse())["release"]
    return found


def test_an_agent_without_any_coordinator_runs_what_it_was_assigned_and_drains_at_the_end(
    chosen: AgentSettings, deployed: int
) -> None:
    """Started over its state folder it serves the app, says so at its health endpoints; SIGINT drains it, exit 0."""
    with agent(chosen) as started:
        started.until("ready")
        started.has_told("agent started")
        assert release_at(deployed) == "v1"
        assert started.ask("/livez")[0] == started.ask("/readyz")[0] == started.ask("/startupz")[0] == 200
        assert "[+]stored-state ok" in started.ask("/readyz?verbose")[1]
        assert started.ask("/apps/nothing/readyz")[0] == 404
        os.kill(started.process.pid, signal.SIGINT)
        started.until("drained")
        assert started.process.wait(DEADLINE_S) == 0
    with pytest.raises(ConnectionRefusedError):
        release_at(deployed)
    messages = [event["message"] for event in started.seen if "message" in event]
    assert "serving" in messages


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_an_agent_without_a_store_leaves_its_instances_to_the_next(
    chosen: AgentSettings, deployed: int, number: signal.Signals
) -> None:
    """Though no service manager keeps anything, the app serves on while there is no agent, and the next takes it up."""
    with agent(chosen) as first:
        pid = first.until("started")["pid"]
        first.until("ready")
        os.kill(first.process.pid, number)
        first.process.wait(DEADLINE_S)
    assert release_at(deployed) == "v1"
    with agent(chosen) as second:
        assert second.until("adopted")["pid"] == pid
        assert release_at(deployed) == "v1"
        os.kill(second.process.pid, signal.SIGINT)
        assert second.until("drained")
        assert second.process.wait(DEADLINE_S) == 0


def test_an_instance_that_does_not_end_by_itself_is_told_as_a_warning(chosen: AgentSettings, deployed: int) -> None:
    """The level of an agent's event tells whether it is in order."""
    with agent(chosen) as started:
        begun = started.until("started")
        started.until("ready")
        os.kill(int(str(begun["pid"])), signal.SIGSTOP)
        os.kill(started.process.pid, signal.SIGINT)
        assert started.until("outlived its grace")["level"] == "warning"
        assert started.until("drained")["level"] == begun["level"] == "info"


def test_a_second_agent_on_one_state_folder_is_refused(chosen: AgentSettings, tmp_path: Path) -> None:
    """It ends at once and names the folder and the pid of the agent that has it."""
    with agent(chosen) as first:
        first.until("agent started")
        with agent(replace(chosen, http_listen=(f"{HOST}:{free_port()}",))) as second:
            assert second.process.wait(DEADLINE_S) != 0
            said = second.process.stderr.read().decode()
    assert f"pid {first.process.pid} already runs with the state folder {tmp_path / 'state'}" in said


def test_a_health_port_that_is_taken_names_who_has_it(chosen: AgentSettings, tmp_path: Path) -> None:
    """An agent whose health address is in use does not start, and says which process listens there."""
    with agent(chosen) as first:
        first.until("agent started")
        with agent(replace(chosen, state_dir=str(tmp_path / "other"))) as second:
            assert second.process.wait(DEADLINE_S) != 0
            said = second.process.stderr.read().decode()
    assert f"cannot listen on {chosen.http_listen[0]}: pid {first.process.pid} (" in said


def test_an_agent_whose_parent_is_gone_drains(chosen: AgentSettings, deployed: int) -> None:
    """The end of the pipe that is handed over as "lifeline" is the same as SIGINT."""
    theirs, ours = os.pipe()
    environment = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "lifeline"}
    with agent(chosen, first_fd=theirs, pass_fds=(theirs,), env=environment) as started:
        os.close(theirs)
        started.until("ready")
        os.close(ours)
        started.until("drained")
        assert started.process.wait(DEADLINE_S) == 0


def agent_checked(chosen: AgentSettings, question: bytes) -> bytes:
    """What HAProxy's agent-check hears."""
    port = int(chosen.agent_check[0].rpartition(":")[2])
    with socket.create_connection((HOST, port), timeout=DEADLINE_S) as connected:
        connected.sendall(question)
        return b"".join(iter(lambda: connected.recv(4096), b""))


def test_a_balancer_is_told_about_readiness(chosen: AgentSettings, deployed: int) -> None:
    """While an instance is ready: /apps/shop/readyz is 200, agent-check `up`; from the beginning of the drain: not."""
    with agent(chosen) as started:
        started.until("ready")
        status, text = started.ask("/apps/shop/readyz")
        while status != 200:
            assert text in {"nothing is ready yet\n", "no instance of web is ready\n"}
            status, text = started.ask("/apps/shop/readyz")
        assert started.ask("/apps/shop/readyz?environment=staging")[0] == 404
        assert agent_checked(chosen, b"shop production\n") == b"up ready 100%\n"
        assert agent_checked(chosen, b"shop staging\n") == b"down #no app shop runs on this host in staging\n"
        with socket.create_connection((HOST, deployed)):  # keeps the instance lingering
            os.kill(started.process.pid, signal.SIGINT)
            started.until("draining")
            assert started.ask("/apps/shop/readyz") == (503, "draining\n")
            assert agent_checked(chosen, b"shop production\n") == b"drain\n"
            assert started.ask("/readyz")[0] == 503
        started.until("drained")


def test_the_service_manager_hears_of_ready_and_stopping(chosen: AgentSettings, tmp_path: Path) -> None:
    """READY=1 once it is up, STOPPING=1 when it ends; what it wants kept before that is its own output."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        with agent(chosen, env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}) as started:
            said: list[bytes] = []
            while b"READY=1" not in b"".join(said):
                data, fds, _, _ = socket.recv_fds(manager, 4096, 4)
                said.append(data)
                for fd in fds:
                    os.close(fd)
            assert b"FDSTORE=1\nFDNAME=agent-journal\nFDPOLL=0" in said
            os.kill(started.process.pid, signal.SIGTERM)
            assert b"STOPPING=1" in manager.recv(4096)
            started.until("agent ends, its instances run on")


def test_a_drain_says_how_far_it_is(chosen: AgentSettings, deployed: int, tmp_path: Path) -> None:
    """`systemctl status` shows the drain until its end, and not again what is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(tmp_path / "notify"))
        said = b""

        def hear_until(word: bytes) -> None:
            nonlocal said
            while word not in said:
                assert is_readable(manager.fileno(), DEADLINE_S)
                data, fds, _, _ = socket.recv_fds(manager, 4096, 4)
                said += data + b"\n"
                for fd in fds:
                    os.close(fd)

        with agent(chosen, env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}) as started:
            hear_until(b"STATUS=1 of 1 instances ready")
            with socket.create_connection((HOST, deployed)):  # keeps the instance lingering
                os.kill(started.process.pid, signal.SIGINT)
                hear_until(b"STATUS=draining, 1 of 1 instances left")
            started.until("drained")
        assert b"instances ready" not in said[said.index(b"STATUS=draining") :]


def test_metrics_tell_what_runs_and_how_late_the_loop_is(chosen: AgentSettings, deployed: int) -> None:
    """/metrics is Prometheus text: instances by state, restarts, the link, the loop's lag, the process itself."""
    with agent(chosen) as started:
        started.until("ready")
        found: list[Sample] = []
        families: dict[str, Metric] = {}
        while not found:
            status, text = started.ask("/metrics")
            assert status == 200
            families = {family.name: family for family in text_string_to_metric_families(text)}
            found = [one for one in families["rollway_instances"].samples if one.labels["state"] == "ready"]
        assert (found[0].value, found[0].labels["app"]) == (1.0, "shop")
        assert families["rollway_link_connected"].samples[0].value == 0
        assert families["rollway_output_sent_bytes"].samples[0].value > 0
        assert families["process_open_fds"].samples[0].value > 10
        restarts = families["rollway_instance_restarts"]
        assert (restarts.type, restarts.samples[0].labels["slot"], restarts.samples[0].value) == ("counter", "1", 0)
        assert {"rollway_loop_lag_seconds", "rollway_stranded_connections"} <= set(families)
        os.kill(started.process.pid, signal.SIGINT)
        started.until("drained")


def test_what_runs_has_no_library_for_certificates_or_secrets(chosen: AgentSettings, deployed: int) -> None:
    """They are a quarter of an agent's memory: a host without secrets never loads them, whatever it runs."""
    with agent(chosen) as started:
        started.until("ready")
        mapped = Path(f"/proc/{started.process.pid}/maps").read_text()
        assert "/_ssl." in mapped
        assert [name for name in ("cryptography", "pyrage") if name in mapped] == []
        os.kill(started.process.pid, signal.SIGINT)
        started.until("drained")


def test_a_loop_that_hangs_tells_the_watchdog_nothing(chosen: AgentSettings, tmp_path: Path) -> None:
    """The watchdog hears from the loop as long as it turns, nothing while it stands; killed, the agent says where."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}

        def hear_until(word: bytes) -> bytes:
            said = b""
            while word not in said:
                said, fds, _, _ = socket.recv_fds(manager, 4096, 4)
                for fd in fds:
                    os.close(fd)
            return said

        with agent(chosen, env=environment) as started:
            assert b"0 of 0 instances ready, no coordinator" in hear_until(b"STATUS=0 of")
            for _ in range(3):
                hear_until(b"WATCHDOG=1")
            os.kill(started.process.pid, signal.SIGSTOP)
            manager.settimeout(2)
            with contextlib.suppress(TimeoutError):  # only silence ends this
                while True:
                    manager.recv(4096)
            os.kill(started.process.pid, signal.SIGCONT)
            manager.settimeout(DEADLINE_S)
            hear_until(b"WATCHDOG=1")
            os.kill(started.process.pid, signal.SIGABRT)  # as the watchdog does
            assert started.process.wait(DEADLINE_S) == -signal.SIGABRT
            told = started.process.stderr.read().decode()
            assert "Fatal Python error: Aborted" in told
            assert "agent/host/main.py" in told


def test_output_that_nobody_takes_stalls_nothing_but_its_writers(chosen: AgentSettings, tmp_path: Path) -> None:
    """With the agent's stdout stuck and an app that floods it, probes go on, the agent answers, memory is bounded."""
    (tmp_path / "source").mkdir()
    source, port = FolderSource(tmp_path / "source"), free_port()
    flood = ProcessType(name=ProcessName("flood"), command="/bin/sh -c 'while :; do head -c 65536 /dev/zero; done'")
    ref = source.add("v1", AppSpec(app=APP, processes=(web(f"{HOST}:{port}", count=1), flood)))

    async def deploy() -> None:
        async with running(tmp_path, source) as rig:
            await rig.until_done(Wish().for_(ref))

    anyio.run(deploy)
    with agent(chosen) as started:
        started.until("agent started")
        while started.ask("/apps/shop/readyz")[0] != 200:
            pass
        before = psutil.Process(started.process.pid).memory_info().rss
        for _ in range(200):
            assert started.ask("/livez")[0] == 200
        _, text = started.ask("/metrics")
        assert psutil.Process(started.process.pid).memory_info().rss - before < 64 << 20
        (sent,) = [line for line in text.splitlines() if line.startswith("rollway_output_unsent_bytes ")]
        assert 1 << 18 < float(sent.split()[1]) < 1 << 20
        assert started.ask("/apps/shop/readyz")[0] == 200
        started.process.kill()
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.environ().get("ROLLWAY_DRAIN_FILE", "").startswith(str(tmp_path)):
                one.kill()
