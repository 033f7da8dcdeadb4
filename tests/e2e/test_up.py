"""`rollway up`: several side by side, one per folder, and what was wanted comes back."""

import subprocess
from pathlib import Path

from tests.e2e.fleet import ROOT, Fleet, fleet, rollway_command, wait_for
from tests.e2e.test_lives import deploy, plain


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
