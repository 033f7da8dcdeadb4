"""The main job beside swapping: migrations, config and secrets, logs, words to a rollout, an absent coordinator."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.fleet import ROOT, Fleet, fleet, rollway_command, wait_for
from tests.e2e.load import load
from tests.e2e.repositories import repository
from tests.e2e.test_lives import QUICK, deploy, marked, plain, web_pids

MIGRATE = """
import os, sqlite3, sys
with sqlite3.connect(os.environ["LEDGER"]) as ledger:
    ledger.execute("CREATE TABLE IF NOT EXISTS runs (release TEXT, instance TEXT)")
    ledger.execute("INSERT INTO runs VALUES (?, ?)", (os.environ["ROLLWAY_RELEASE"], os.environ["ROLLWAY_INSTANCE"]))
print("the ledger is written")
sys.exit(CODE)
"""


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("main"), hosts=2) as one:
        yield one


def environment_of(one: Fleet) -> dict[str, str]:
    return {**os.environ, "ROLLWAY_CONFIG": str(one.folder / "up" / "client.toml"), "PYTHONPATH": str(ROOT)}


def test_migration_runs_once(two_hosts: Fleet, tmp_path: Path) -> None:
    """The release command runs once per rollout, before anything new starts; its failure swaps nothing, exit 1."""
    text = f'[release]\ncommand = "{sys.executable} migrate.py"\n'
    codes = {"v1": "0", "v2": "7"}
    source = plain(
        tmp_path / "r",
        "ledger",
        9801,
        dict.fromkeys(codes, "good"),
        more=text,
        files={version: {"migrate.py": MIGRATE.replace("CODE", code)} for version, code in codes.items()},
    )
    ledger = tmp_path / "ledger.db"
    two_hosts.rollway("build", str(source), "--ref", "v1")
    two_hosts.rollway("config", "set", "ledger", "local", f"LEDGER={ledger}")
    deploy(two_hosts, "ledger", source, "v1")
    before = web_pids(two_hosts, "ledger")
    said = deploy(two_hosts, "ledger", source, "v2", code=1)
    assert "exit code 7" in said
    assert "the ledger is written" in said, "its output is shown"
    assert web_pids(two_hosts, "ledger") == before
    assert two_hosts.releases("ledger") == {"v1"}
    with sqlite3.connect(ledger) as database:
        assert [release for (release,) in database.execute("SELECT release FROM runs")] == ["v1", "v2"]


def test_secret_is_seen_by_the_process_alone(two_hosts: Fleet, tmp_path: Path) -> None:
    """A secret reaches the instance's environment, and neither an answer, nor a log, nor a file of the fleet."""
    source = plain(tmp_path / "r", "vault", 9802, {"v1": "good"})
    two_hosts.rollway("build", str(source), "--ref", "v1")
    two_hosts.rollway("config", "set", "vault", "local", "PASSWORD=xyzzy-opens-it", "--secret")
    deploy(two_hosts, "vault", source, "v1")
    pid = web_pids(two_hosts, "vault")[0]
    assert psutil.Process(pid).environ()["PASSWORD"] == "xyzzy-opens-it"
    assert "xyzzy" not in two_hosts.rollway("config", "get", "vault", "local", "--json").stdout
    assert "xyzzy" not in two_hosts.rollway("release", "show", "vault", "local", "v1", "--json").stdout
    found = subprocess.run(
        ["grep", "-rl", "xyzzy-opens", str(two_hosts.folder)], capture_output=True, text=True, check=False
    )
    assert found.stdout == ""


def test_config_is_part_of_the_release(two_hosts: Fleet, tmp_path: Path) -> None:
    """A config change reaches instances by a new release only, and goes back with a rollback."""
    source = plain(tmp_path / "r", "tuned", 9803, {"v1": "good"})
    two_hosts.rollway("build", str(source), "--ref", "v1")
    two_hosts.rollway("config", "set", "tuned", "local", "LEVEL=1")
    deploy(two_hosts, "tuned", source, "v1")
    two_hosts.rollway("config", "set", "tuned", "local", "LEVEL=2")
    assert {psutil.Process(pid).environ()["LEVEL"] for pid in web_pids(two_hosts, "tuned")} == {"1"}
    two_hosts.rollway("release", "create", "tuned", "local", "--ref", "v1", "--path", str(source), "--name", "louder")
    two_hosts.rollway("swap", "tuned", "local", "louder")
    wait_for("two instances", lambda: len(web_pids(two_hosts, "tuned")) == 2)
    assert {psutil.Process(pid).environ()["LEVEL"] for pid in web_pids(two_hosts, "tuned")} == {"2"}
    two_hosts.rollway("rollback", "tuned", "local")
    wait_for("two instances", lambda: len(web_pids(two_hosts, "tuned")) == 2)
    assert {psutil.Process(pid).environ()["LEVEL"] for pid in web_pids(two_hosts, "tuned")} == {"1"}


def test_a_coordinator_that_is_gone(two_hosts: Fleet, tmp_path: Path) -> None:
    """While no coordinator answers, apps run and serve, and what crashes is started again."""
    source = plain(tmp_path / "r", "alone", 9804, {"v1": "good"})
    deploy(two_hosts, "alone", source, "v1")
    (coordinator,) = two_hosts.pids("coordinator")
    hosts = [two_hosts.address("h1"), two_hosts.address("h2")]
    victims = web_pids(two_hosts, "alone")
    os.kill(coordinator, signal.SIGSTOP)
    try:
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        wait_for(
            "both were started again",
            lambda: len([one for one in psutil.process_iter() if marked(one, "alone") and one.pid not in victims]) == 2,
        )
        with load(9804, hosts, "v1", pause_ms=20) as users:
            seen = users.wait_for(200, 200)
        assert seen["failed"] == 0, seen["reasons"]
    finally:
        os.kill(coordinator, signal.SIGCONT)
    wait_for("the new pids are told", lambda: not set(web_pids(two_hosts, "alone")) & set(victims))


def test_logs_are_followed(two_hosts: Fleet, tmp_path: Path) -> None:
    """`logs -f` shows each new line of every host as it comes, and what it shows are the app's own words."""
    clock = (Path(__file__).parent / "apps" / "clock.py").read_text()
    text = f'app = "teller"\n[process.clock]\ncommand = "{sys.executable} -P clock.py"\n'
    source = repository(tmp_path / "r", {"v1": {"rollway.toml": text, "clock.py": clock}})
    deploy(two_hosts, "teller", source, "v1")
    words = rollway_command("logs", "teller", "local", "clock", "-f", "--json")
    with subprocess.Popen(words, env=environment_of(two_hosts), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        records = [json.loads(follower.stdout.readline()) for _ in range(40)]
        follower.terminate()
    assert {record["host"] for record in records} == {"h1", "h2"}
    assert {record["message"] for record in records} == {"tick"}
    assert {(record["app"], record["release"], record["process"]) for record in records} == {("teller", "v1", "clock")}


def test_pause_resume_and_abort(two_hosts: Fleet, tmp_path: Path) -> None:
    """A paused rollout begins no other host, goes on when resumed, and an aborted one brings stable back, exit 3."""
    source = plain(tmp_path / "r", "patient", 9805, {"v1": "good", "v2": "good"})
    deploy(two_hosts, "patient", source, "v1")
    two_hosts.rollway("build", str(source), "--ref", "v2")
    two_hosts.rollway("release", "create", "patient", "local", "--ref", "v2", "--path", str(source), "--name", "v2")
    (tmp_path / "slow.toml").write_text(QUICK + 'pause_between = "8s"\n')  # time for a person to say a word
    two_hosts.rollway("env", "set", "patient", "local", "--file", str(tmp_path / "slow.toml"))
    rollout = two_hosts.json("swap", "patient", "local", "v2", "--detach")
    identity = str(rollout["id"])

    def running() -> bool:
        return two_hosts.json("rollout", "show", identity)["state"] == "running"

    wait_for("it runs", running)
    two_hosts.rollway("rollout", "pause", identity)
    wait_for("one host has moved", lambda: two_hosts.releases("patient") == {"v1", "v2"})
    assert "v2" in two_hosts.rollway("swap", "patient", "local", "v2", code=4).stderr, (
        "a second one is refused, by name"
    )
    two_hosts.rollway("rollout", "abort", identity)
    two_hosts.rollway("rollout", "watch", identity, code=3)
    assert two_hosts.json("rollout", "show", identity)["state"] == "aborted"
    wait_for("v1 runs everywhere", lambda: two_hosts.releases("patient") == {"v1"})
    identity = str(two_hosts.json("swap", "patient", "local", "v2", "--detach")["id"])
    wait_for("it runs", running)
    two_hosts.rollway("rollout", "pause", identity)
    two_hosts.rollway("rollout", "resume", identity)
    two_hosts.rollway("rollout", "watch", identity)
    assert two_hosts.releases("patient") == {"v2"}


def test_nothing_of_the_agent_leaks(two_hosts: Fleet, tmp_path: Path) -> None:
    """An instance has the limits that `rollway up` was started with, and its own descriptors alone."""
    assert two_hosts.process is not None
    source = plain(tmp_path / "r", "bare", 9806, {"v1": "good"})
    deploy(two_hosts, "bare", source, "v1")
    instance = psutil.Process(web_pids(two_hosts, "bare")[0])
    assert instance.rlimit(psutil.RLIMIT_NOFILE) == psutil.Process(two_hosts.process.pid).rlimit(psutil.RLIMIT_NOFILE)
    kinds = sorted(str(entry.readlink()).partition(":")[0] for entry in Path(f"/proc/{instance.pid}/fd").iterdir())
    allowed = {"/dev/null", "anon_inode", "socket", str(two_hosts.folder)}
    assert all(any(kind.startswith(start) for start in allowed) for kind in kinds), kinds
    assert kinds.count("socket") <= 2, "its listening socket, perhaps a probe's connection"
