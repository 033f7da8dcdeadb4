"""Room for the leaves of instances, in a unit that somebody else starts and stops."""

import signal
import time
from uuid import uuid4

import pytest

from agent.linux import cgroup, pidfd
from tests.integration.linux.conftest import Start, Started

HOLDS = ("/bin/sh", "-c", "echo here; exec sleep 60")


def ended(process: Started) -> None:
    pidfd.send_signal(process.pidfd, signal.SIGKILL)
    process.exit()


def test_there_is_room_while_the_unit_of_the_apps_is_held_up(start: Start) -> None:
    """None before its process is there and none after it; a unit that was started anew is taken over again."""
    root = cgroup.detect()
    if root is None:
        pytest.skip("this machine has no writable cgroup v2")
    unit = cgroup.create(root, f"rollway-test-{uuid4()}")
    has_room = cgroup.Room(unit)
    assert not has_room()
    for _ in range(2):
        cgroup.create(unit.parent, unit.name)
        process = start(*HOLDS, cgroup=unit)
        assert process.line() == "here"
        assert has_room()
        assert has_room(), "asked again"
        assert cgroup.pids(unit / cgroup.HOLDER) == [process.pid]
        ended(process)
        ends_s = time.monotonic() + 10
        while has_room():  # one look is for all in the same moment
            assert time.monotonic() < ends_s
        assert cgroup.remove(unit)
    assert not has_room()
    assert cgroup.remove(unit)
    assert cgroup.Room(None)(), "without a unit there always is"
