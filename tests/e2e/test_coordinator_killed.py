"""The coordinator killed at ten points of a rollout: it always ends with one release everywhere, and nobody notices."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.fleet import ROOT, Fleet, fleet, rollway_command, wait_for
from tests.e2e.load import load
from tests.e2e.test_lives import deploy, plain

POINTS = range(10)
HOSTS = ("h1", "h2", "h3")


@pytest.fixture(scope="module")
def three_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("killed")) as one:
        yield one


def swap(one: Fleet, app: str, release: str) -> "subprocess.Popen[str]":
    """`rollway swap` in a pipe: one line per event."""
    environment = {**os.environ, "ROLLWAY_CONFIG": str(one.folder / "up" / "client.toml"), "PYTHONPATH": str(ROOT)}
    words = rollway_command("swap", app, "local", release)
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_coordinator(one: Fleet) -> None:
    (pid,) = one.pids("coordinator")
    os.kill(pid, signal.SIGKILL)
    wait_for("the coordinator is gone", lambda: not psutil.pid_exists(pid))


@pytest.mark.timeout(600)
def test_killed_at_ten_points(three_hosts: Fleet, tmp_path: Path) -> None:
    """After its n-th event the coordinator is killed; started again it goes on to the end, and no request fails."""
    source = plain(tmp_path / "r", "steady", 9601, {"v1": "good", "v2": "good"})
    deploy(three_hosts, "steady", source, "v1")
    three_hosts.rollway("build", str(source), "--ref", "v2")
    three_hosts.rollway("release", "create", "steady", "local", "--ref", "v2", "--path", str(source), "--name", "v2")
    seen_events = []
    with load(9601, [three_hosts.address(host) for host in HOSTS], "v1", "v2", pause_ms=50) as users:
        for point in POINTS:
            release = "v2" if point % 2 == 0 else "v1"
            with swap(three_hosts, "steady", release) as command:
                assert command.stdout is not None
                events = [command.stdout.readline() for _ in range(point + 1)]
                kill_coordinator(three_hosts)
                events += command.stdout.readlines()
            assert command.returncode == 0, "".join(events)
            seen_events.append(events[point].partition("Z ")[2].strip())
            assert three_hosts.releases("steady") == {release}
            newest = three_hosts.rows("rollout", "list")[0]
            assert (newest["release"], newest["state"]) == (release, "done")
        seen = users.end()
    assert seen["failed"] == seen["cut"] == 0, seen["reasons"]
    assert len(set(seen_events)) >= len(POINTS) // 2, f"the points were not different ones: {seen_events}"
