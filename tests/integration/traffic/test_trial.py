"""`rollway agent balancer`: what a person learns about a load balancer before a rollout relies on it."""

import json
from pathlib import Path

import anyio
import pytest

from agent.cli import agent_balancer, agent_main
from agent.errors import UsageError
from agent.traffic import conformance
from tests.integration.traffic.balanced import BACKEND, Server, haproxy, servers
from tests.integration.traffic.balanced import Proxy as Started


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh HAProxy lets a drain take its whole time: let that be short."""
    monkeypatch.setattr(agent_balancer, "DRAIN_MS", 1_500)
    monkeypatch.setattr(conformance, "STEP_WITHIN_S", 2.0)


def words(proxy: Started, server: Server, backend: str = BACKEND) -> list[str]:
    return ["balancer", "--socket", proxy.socket, "--backend", backend, "--server", str(server.address)]


def test_a_balancer_that_does_what_it_is_told_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each step is told as it ends, exit 0, and nothing is left behind."""
    with haproxy(tmp_path) as proxy, servers("web") as (web,):
        anyio.run(proxy.look)
        assert agent_main.run(words(proxy, web)) == 0
        told = capsys.readouterr().out.splitlines()
        assert [line.rpartition(" (")[0] for line in told] == [
            "[+] admit: admitted",
            "[+] drain: drained",
            "[+] admit again: admitted",
            "[+] drain again: drained",
            "[+] remove: gone",
        ]


def test_one_that_refuses_is_told_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first step that fails is the last but for the removal; `--json` has the same, exit 1."""
    with haproxy(tmp_path, level="operator") as proxy, servers("web") as (web,):
        anyio.run(proxy.look)
        assert agent_main.run([*words(proxy, web), "--json"]) == 1
        tried = json.loads(capsys.readouterr().out)
        assert [(one["step"], one["well"]) for one in tried] == [("admit", False), ("remove", True)]
        assert "Give the stats socket `level admin`" in tried[0]["found"]


def test_a_server_by_name_is_refused(tmp_path: Path) -> None:
    """An address is numeric: exit 2, nothing is asked."""
    with pytest.raises(UsageError, match="not a server"):
        agent_main.run(["balancer", "--socket", str(tmp_path / "s"), "--backend", "b", "--server", "shop:80"])
