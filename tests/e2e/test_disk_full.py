"""A disk that is full under a whole fleet, in the middle of a rollout: nobody feels it, and all goes on by itself."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.fleet import Fleet, fleet, wait_for
from tests.e2e.load import load
from tests.e2e.test_coordinator_killed import swap
from tests.e2e.test_lives import deploy, plain
from tests.integration.disk.conftest import Disk

APP: Final = "brimful"
PORT: Final = 9621
HOSTS: Final = ("h1", "h2")
UNSTORED: Final = ("a rollout could not be stored", "the state cannot be stored")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """All that the fleet keeps lies on it."""
    mounted = tmp_path / "up"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(mounted)], check=True)
    try:
        yield Disk(mounted)
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def said(one: Fleet) -> str:
    return (one.folder / "apps.log").read_text(errors="replace")


@pytest.mark.timeout(300)
def test_a_rollout_waits_for_room_and_goes_on(disk: Disk, tmp_path: Path) -> None:
    """On a full disk a swap is refused with what to do; filled in its middle, it waits, and ends well with room."""
    source = plain(tmp_path / "r", APP, PORT, {"v1": "good", "v2": "good"})
    with fleet(tmp_path, hosts=len(HOSTS)) as one:
        deploy(one, APP, source, "v1")
        one.rollway("build", str(source), "--ref", "v2")
        one.rollway("release", "create", APP, "local", "--ref", "v2", "--path", str(source), "--name", "v2")
        with load(PORT, [one.address(host) for host in HOSTS], "v1", "v2", pause_ms=50) as users:
            disk.fill("bytes")
            refused = one.rollway("swap", APP, "local", "v2", code=1)
            assert f"cannot store in {tmp_path}/up/" in refused.stderr
            assert "Free space" in refused.stderr
            disk.free()
            with swap(one, APP, "v2") as command:
                assert command.stdout is not None
                while ": running" not in command.stdout.readline():
                    pass
                disk.fill("bytes")
                # Who meets it first holds the other up: the coordinator, which may have room in its log, or a host.
                wait_for("somebody cannot store", lambda: any(words in said(one) for words in UNSTORED))
                assert command.poll() is None
                disk.free()
                events = list(iter(command.stdout.readline, ""))
            assert command.returncode == 0, "".join(events)
            seen = users.end()
        assert one.releases(APP) == {"v2"}
    assert seen["failed"] == seen["cut"] == 0, seen["reasons"]
