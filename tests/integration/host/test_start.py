"""The order of an agent's start: what is refused, then what the host runs, then what speaks with others."""

import os
import signal
import socket
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from agent.model.roles import AgentSettings
from tests.integration.host.test_process import DEADLINE_S, HOST, agent, chosen, deployed, release_at

__all__ = ["chosen", "deployed"]
SLOW = """
import os, sys
from importlib.machinery import PathFinder
from agent.host import lean
class Slow:
    def find_spec(self, name, path, target=None):
        if name != "agent.host.outside":
            return None
        spec = PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (os.read(os.open({!r}, os.O_RDWR), 1), execute(module))
        return spec
sys.meta_path.insert(0, Slow())
with lean.imports(http=False):
    import agent.host.main
"""
"""What speaks with others is imported once there is a byte in the FIFO."""


def test_what_the_host_runs_waits_for_nothing_that_speaks_with_others(
    chosen: AgentSettings, deployed: int, tmp_path: Path
) -> None:
    """While that is imported instances serve, and are restarted; who asks for health meanwhile is answered after it."""
    fifo = tmp_path / "imported"
    os.mkfifo(fifo)
    with agent(chosen, prelude=SLOW.format(str(fifo))) as started, fifo.open("r+b", 0) as gate:
        for _ in range(2):
            begun = started.until("started")
            started.until("ready")
            assert release_at(deployed) == "v1"
            os.kill(int(str(begun["pid"])), signal.SIGKILL)
        started.until("started")
        with closing(HTTPConnection(HOST, health_port(chosen), timeout=DEADLINE_S)) as asked:
            asked.request("GET", "/livez")
            assert all(event.get("event") != "agent started" for event in started.seen)
            gate.write(b".")
            assert asked.getresponse().status == 200
        started.until("agent started")
        os.kill(started.process.pid, signal.SIGINT)  # else its instance outlives the test
        started.until("drained")


def test_an_agent_whose_address_is_taken_starts_nothing(chosen: AgentSettings, deployed: int) -> None:
    """It is refused with all its instances still to be started."""
    with socket.create_server((HOST, health_port(chosen))), agent(chosen) as refused:
        out, error = refused.process.communicate(timeout=DEADLINE_S)
        assert f"cannot listen on {chosen.http_listen[0]}" in error.decode()
        assert b'"started"' not in out
        assert refused.process.returncode != 0
    with pytest.raises(ConnectionRefusedError):
        release_at(deployed)


def health_port(chosen: AgentSettings) -> int:
    return int(chosen.http_listen[0].rpartition(":")[2])
