"""`rollway up`: several side by side, one per folder, and what was wanted comes back."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.e2e.fleet import ROOT, Fleet, fleet, rollway_command, wait_for
from tests.e2e.load import load
from tests.e2e.test_lives import deploy, plain, web_pids


def test_two_side_by_side(tmp_path: Path) -> None:
    """Two fleets on one machine take different address blocks, and the same app on the same port runs in both."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    source = plain(tmp_path / "r", "twin", 9301, {"v1": "good"})
    with fleet(folders[0], hosts=1) as one, fleet(folders[1], hosts=1) as two:
        assert one.address() != two.address()
        for fleet_of_two in (one, two):
            deploy(fleet_of_two, "twin", source, "v1")
            assert fleet_of_two.releases("twin") == {"v1"}


def test_one_per_folder(tmp_path: Path) -> None:
    """A second `up` on the same folder is refused, exit 4, and the first goes on."""
    with fleet(tmp_path, hosts=1) as one:
        words = rollway_command("up", "--hosts", "1", "--dir", str(tmp_path / "up"))
        second = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 4
        assert one.process is not None
        assert str(one.process.pid) in second.stderr
        one.rollway("status")


def test_block_in_use(tmp_path: Path) -> None:
    """An address block that another `up` holds is refused by name."""
    with fleet(tmp_path, hosts=1, net="127.19.7.0/24"):
        words = rollway_command("up", "--hosts", "1", "--dir", str(tmp_path / "other"), "--net", "127.19.7.0/24")
        second = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 4
        assert "127.19.7.0/24" in second.stderr


def test_nobody_reads(tmp_path: Path) -> None:
    """Ctrl-C ends an `up` whose output nobody reads any more, though the pipe is full."""
    reader, writer = os.pipe()
    words = rollway_command("up", "--hosts", "1", "--dir", str(tmp_path / "up"))
    with subprocess.Popen(words, cwd=ROOT, stdout=writer, start_new_session=True) as process:
        try:
            assert os.read(reader, 7) == b"rollway"
            os.set_blocking(writer, False)
            with suppress(BlockingIOError):
                while True:
                    os.write(writer, bytes(4096))
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            os.close(reader)
            os.close(writer)
            process.kill()


def test_killed_and_started_at_once(tmp_path: Path) -> None:
    """After `kill -9` of `up` the next one on the folder takes over what runs: no process ends, no request fails."""
    source = plain(tmp_path / "r", "killed", 9303, {"v1": "good"})
    one = Fleet(tmp_path, hosts=1)
    one.start()
    try:
        deploy(one, "killed", source, "v1")
        (old,) = web_pids(one, "killed")
        assert one.process is not None
        with load(9303, [one.address()], "v1", pause_ms=20) as users:
            one.process.kill()
            one.process.wait()
            one.start()
            wait_for("v1 is told to run", lambda: one.releases("killed") == {"v1"})
            seen = users.end()
        assert seen["failed"] == seen["cut"] == 0, seen["reasons"]
        assert web_pids(one, "killed") == [old]
        assert "an earlier one was killed here" in one.output.read_text()
    finally:
        one.stop()


def test_state_survives(tmp_path: Path) -> None:
    """Stopped and started again with the same folder, what was wanted runs again, and the next swap works."""
    source = plain(tmp_path / "r", "lasting", 9302, {"v1": "good", "v2": "good"})
    one = Fleet(tmp_path, hosts=2)
    one.start()
    deploy(one, "lasting", source, "v1")
    one.stop()
    one.start()
    try:
        ready = [("h1", "ready"), ("h2", "ready")]
        wait_for(
            "v1 runs again on both hosts",
            lambda: sorted((row["host"], row["state"]) for row in one.rows("ps", "lasting", "local")) == ready,
        )
        assert one.releases("lasting") == {"v1"}
        deploy(one, "lasting", source, "v2")
        assert one.releases("lasting") == {"v2"}
    finally:
        one.stop()
    assert _hosts_of_records(tmp_path / "apps.log") == {"h1", "h2"}


def _hosts_of_records(file: Path) -> set[str]:
    """Which hosts the records of instances name, in what `up` has written; a record without one is an error."""
    records = [json.loads(line) for line in file.read_text().splitlines() if '"instance":' in line]
    return {str(record["host"]) for record in records}
