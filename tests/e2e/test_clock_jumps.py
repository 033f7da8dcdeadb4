"""The wall clock of a whole fleet jumps an hour ahead and back, again and again, in the middle of what it does."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.e2e.fleet import Fleet, wait_for
from tests.e2e.load import load
from tests.e2e.test_coordinator_killed import kill_coordinator, swap
from tests.e2e.test_lives import deploy, plain, web_pids

APP: Final = "timeless"
PORT: Final = 9631
HOSTS: Final = ("h1", "h2")
PACE: Final = '[rolling]\nmin_ready = "500ms"\npause_between = "500ms"\ndeadline = "20s"\nprogress_deadline = "40s"\n'
HOUR_AHEAD, HOUR_BACK, NOW = "+3600", "-3600", "+0"
LIBRARIES: Final = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")


class Wall:
    """The wall clock of coordinator and agents, their libraries included; CLOCK_BOOTTIME and MONOTONIC are true."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(NOW)

    def jump(self, offset: str) -> None:
        beside = self._file.with_suffix(".next")
        beside.write_text(f"{offset}\n")
        beside.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(next(LIBRARIES)),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.fixture
def wall(tmp_path: Path) -> Wall:
    return Wall(tmp_path / "wall")


@pytest.fixture
def jumping(wall: Wall, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet that lives by `wall`; the commands that are given to it live by the true time."""
    one = Fleet(tmp_path, hosts=len(HOSTS))
    before = dict(os.environ)
    os.environ.update(wall.environment)
    try:
        one.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    yield one
    one.stop()


@pytest.mark.timeout(300)
def test_an_hour_ahead_and_back_changes_nothing(jumping: Fleet, wall: Wall, tmp_path: Path) -> None:
    """At each event of a swap the clock jumps; it ends as ever, at its pace, and no request fails.

    So does one whose coordinator is killed while the clock is an hour back; and what ends is started again at once.
    """
    source = plain(tmp_path / "r", APP, PORT, {"v1": "good", "v2": "good"})
    deploy(jumping, APP, source, "v1")
    (tmp_path / "pace.toml").write_text(PACE)
    jumping.rollway("env", "set", APP, "local", "--file", str(tmp_path / "pace.toml"))
    jumping.rollway("build", str(source), "--ref", "v2")
    jumping.rollway("release", "create", APP, "local", "--ref", "v2", "--path", str(source), "--name", "v2")
    with load(PORT, [jumping.address(host) for host in HOSTS], "v1", "v2", pause_ms=50) as users:
        with swap(jumping, APP, "v2") as command:
            assert command.stdout is not None
            events = []
            for event, offset in zip(command.stdout, itertools.cycle((HOUR_AHEAD, HOUR_BACK, NOW)), strict=False):
                events.append(event)
                wall.jump(offset)
        assert command.returncode == 0, "".join(events)
        assert jumping.releases(APP) == {"v2"}
        wall.jump(HOUR_BACK)
        with swap(jumping, APP, "v1") as command:
            assert command.stdout is not None
            events = [command.stdout.readline()]
            kill_coordinator(jumping)
            events += command.stdout
        assert command.returncode == 0, "".join(events)
        assert jumping.releases(APP) == {"v1"}
        seen = users.end()
    assert seen["failed"] == seen["cut"] == 0, seen["reasons"]
    assert restarts(jumping) == 0
    before = web_pids(jumping, APP)
    wall.jump(HOUR_AHEAD)
    psutil.Process(before[0]).kill()
    wait_for("it runs again", lambda: restarts(jumping) == 1 and len(web_pids(jumping, APP)) == len(before), 10)


def restarts(one: Fleet) -> int:
    return sum(int(str(row["restarts"])) for row in one.rows("ps", APP, "local"))
