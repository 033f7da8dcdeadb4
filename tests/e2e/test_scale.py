"""`rollway scale` on a fleet as a user has it: at once, without a swap, felt by nobody, whoever is killed meanwhile."""

import http.client
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import cast

import psutil
import pytest

from agent.settings.agentfile import load_agent
from tests.e2e.fleet import Fleet, fleet, rollway_command, wait_for
from tests.e2e.load import load
from tests.e2e.test_lives import deploy, plain

PORT = 9641
WORKERS = f"""
[process.worker]
command = "sleep 1000"
[process.broken]
command = "sh -c 'exit 3'"
count = 0
[process.broken.probe.startup]
exec = "false"
[process.broken.restart]
base_delay = "100ms"
crash_loop = {{ restarts = 3, within = "1m" }}
[process.admin]
command = "{sys.executable} -P plain.py"
listen = ["0.0.0.0:{PORT + 1}"]
count = 0
"""


def running(one: Fleet) -> dict[str, dict[str, int | None]]:
    """The pid of each instance that is ready, by host and name."""
    found: dict[str, dict[str, int | None]] = {"h1": {}, "h2": {}}
    for row in one.rows("ps", "shop", "local"):
        if row["state"] == "ready":
            found[str(row["host"])][str(row["instance"])] = cast("int", row["pid"])
    return found


def counts(one: Fleet) -> list[dict[str, int]]:
    """How many of each type are ready, host by host."""
    return [dict(Counter(name.partition(".")[0] for name in names)) for names in running(one).values()]


def balanced(one: Fleet) -> tuple[int, str]:
    """What a balancer in front of h1 is told."""
    settings = load_agent((one.folder / "up" / "hosts" / "h1" / "agent.toml").read_text(), "agent.toml")
    connection = http.client.HTTPConnection(settings.http_listen[0], timeout=10)
    with closing(connection):
        connection.request("GET", "/apps/shop/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read().decode().strip() if answer.status != HTTPStatus.OK else ""


@pytest.mark.timeout(300)
def test_counts_change_at_once_and_nobody_feels_it(tmp_path: Path) -> None:
    """More are started beside what runs, surplus is drained; the next release runs as many; no request fails."""
    source = plain(tmp_path / "r", "shop", PORT, {"v1": "good", "v2": "good"}, more=WORKERS)
    with fleet(tmp_path, hosts=2) as one:
        deploy(one, "shop", source, "v1")
        before = running(one)
        with load(PORT, [one.address(host) for host in ("h1", "h2")], "v1", "v2", pause_ms=50) as users:
            assert "shop local runs web=3 worker=0" in one.rollway("scale", "shop", "local", "web=3", "worker=0").stdout
            assert balanced(one) == (200, ""), "that admin is to run nowhere keeps nobody out"
            after = running(one)
            assert counts(one) == [{"web": 3}, {"web": 3}]
            assert all(after[host]["web.1"] == before[host]["web.1"] for host in before), "what ran was not touched"
            assert "nothing done" in one.rollway("scale", "shop", "local", "web=3").stdout

            shown = one.json("scale", "shop", "local", "web=2", "worker=2")
            assert (shown["state"], shown["release"]) == ("done", "v1")
            assert shown["counts"] == {"web": 2, "worker": 2, "broken": 0, "admin": 0}
            assert counts(one) == [{"web": 2, "worker": 2}] * 2
            assert set(running(one)["h1"]) == {"web.1", "web.2", "worker.1", "worker.2"}, "the highest went"

            _killed_meanwhile(one, "coordinator", "web=4")
            _killed_meanwhile(one, "agent", "web=1")
            assert counts(one) == [{"web": 1, "worker": 2}] * 2

            _crashes(one)
            assert "[scale]\nweb = 1\nworker = 2\nbroken = 0\n" in one.rollway("env", "show", "shop", "local").stdout
            assert one.rollway("scale", "shop", "local").stdout.split() == (
                ["TYPE", "COUNT", "web", "1", "worker", "2", "broken", "0", "admin", "0"]
            )
            _release(one, source, "v2")
            assert counts(one) == [{"web": 1, "worker": 2}] * 2
            seen = users.end()
        assert seen["failed"] == seen["cut"] == 0, seen["reasons"]
        one.rollway("scale", "shop", "local", "web=0", "worker=0")
        assert counts(one) == [{}, {}]
        assert balanced(one) == (503, "every process type that listens is scaled to 0")
        one.rollway("scale", "shop", "local", "web=1")
        assert counts(one) == [{"web": 1}] * 2
        assert "no process type nope" in one.rollway("scale", "shop", "local", "nope=1", code=5).stderr


def _release(one: Fleet, source: Path, version: str) -> None:
    """As `deploy`, but the settings stay as they are."""
    one.rollway("build", str(source), "--ref", version)
    one.rollway("release", "create", "shop", "local", "--ref", version, "--path", str(source), "--name", version)
    one.rollway("swap", "shop", "local", version)


def _killed_meanwhile(one: Fleet, role: str, word: str) -> None:
    """Whoever is killed in the middle, the one who scales sees it done."""
    environment = {**os.environ, "ROLLWAY_CONFIG": str(one.folder / "up" / "client.toml")}
    words = rollway_command("scale", "shop", "local", word)
    asked = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert asked.stdout is not None
    said = asked.stdout.readline()  # the first word of the hosts: it is under way
    for pid in one.pids(role):
        os.kill(pid, signal.SIGKILL)
        wait_for("it is gone", lambda pid=pid: not psutil.pid_exists(pid))  # type: ignore[misc]  # bound now
    out, error = asked.communicate(timeout=90)
    assert (asked.returncode, "on each host" in out) == (0, True), said + out + error


def _crashes(one: Fleet) -> None:
    """A type that cannot run fails its count, and nothing else; taken back, it is gone."""
    web = running(one)["h1"]["web.1"]
    said = one.rollway("scale", "shop", "local", "broken=1", code=1).stdout
    assert "broken.1 keeps crashing" in said
    assert "exit" in said
    assert running(one)["h1"]["web.1"] == web
    one.rollway("scale", "shop", "local", "broken=0")
    assert not [row for row in one.rows("ps", "shop", "local") if str(row["instance"]).startswith("broken")]
