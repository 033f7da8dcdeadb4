"""At 3 a.m. the coordinator is away: a person on a host looks, restarts, goes back; then the coordinator returns."""

import json
import os
import signal
from pathlib import Path
from typing import cast

import psutil
import pytest

from tests.e2e.fleet import Fleet, Json, fleet, wait_for
from tests.e2e.load import load
from tests.e2e.test_lives import deploy, plain

PORT = 9631


def on_host(one: Fleet, host: str, *words: str, code: int = 0) -> str:
    """`rollway agent …` on a host, as a person there gives it."""
    file = one.folder / "up" / "hosts" / host / "agent.toml"
    done = one.rollway("agent", *words, "--config", str(file), code=code)
    return done.stdout + done.stderr


def hosts_of(rollout: Json) -> dict[str, str]:
    return {str(host["host"]): str(host["state"]) for host in cast("list[Json]", rollout["hosts"])}


@pytest.mark.timeout(300)
def test_a_person_acts_on_a_host_while_the_coordinator_is_away(tmp_path: Path) -> None:
    """No request fails; the host that was taken back is pinned, left alone by the next rollout, and follows it then."""
    source = plain(tmp_path / "r", "night", PORT, dict.fromkeys(("v1", "v2", "v3"), "good"))
    with fleet(tmp_path, hosts=2) as one:
        for version in ("v1", "v2"):
            deploy(one, "night", source, version)
        (coordinator,) = one.pids("coordinator")
        assert "[+] link: connected" in on_host(one, "h1", "check")
        with load(PORT, [one.address(host) for host in ("h1", "h2")], "v1", "v2", "v3", pause_ms=50) as users:
            os.kill(coordinator, signal.SIGSTOP)
            assert "pinned to v1" in on_host(one, "h1", "rollback", "night")
            assert "restarted" in on_host(one, "h2", "restart", "night", "local", "web")
            on_host(one, "h1", "ps", "night")
            wait_for("h1 is back at v1", lambda: _ready(one, "h1") == {"v1"})
            os.kill(coordinator, signal.SIGKILL)
            wait_for("the coordinator is gone", lambda: not psutil.pid_exists(coordinator))
            wait_for("the coordinator is back, and knows", lambda: _told(one) == {"v1", "v2"})
            said = deploy(one, "night", source, "v3")
            assert "h1" in said
            rollout = one.rows("rollout", "list")[0]
            assert (rollout["state"], hosts_of(rollout)) == ("done", {"h1": "pinned", "h2": "done"})
            assert one.releases("night") == {"v1", "v3"}
            assert "h1 is pinned" in one.rollway("status", "night").stdout
            assert "follows its assignment again" in on_host(one, "h1", "unpin", "night")
            wait_for("h1 follows", lambda: _ready(one, "h1") == {"v3"})
            seen = users.end()
    assert seen["failed"] == seen["cut"] == 0, seen["reasons"]


def _told(one: Fleet) -> set[str]:
    """What the coordinator knows to run; nothing while it does not answer."""
    try:
        return one.releases("night")
    except AssertionError:
        return set()


def _ready(one: Fleet, host: str) -> set[str]:
    """Which releases the instances of a host are of, by its agent; while one is not ready, none."""
    file = one.folder / "up" / "hosts" / host / "agent.toml"
    rows = json.loads(one.rollway("agent", "ps", "night", "--json", "--config", str(file)).stdout)
    return {row["release"] for row in rows} if {row["state"] for row in rows} == {"ready"} else set()
