"""An agent of a real host whose settings are wrong: it says so, and costs the host nothing until they are corrected."""

import pytest

from tests.hosts.fleet import Fleet, instances
from tests.hosts.machines import Host, wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("fleet")]
FILE = "/etc/rollway/agent.toml"
UNIT = "rollway-agent"


def test_without_right_settings_it_fails_and_waits_for_a_person(fleet: Fleet) -> None:
    """Its unit is not started for ever: it has failed, with what to do in its journal, and starts once all is right."""
    host = fleet.hosts[1]
    right = host.read(FILE)
    host.run("systemctl", "stop", UNIT)
    host.run("rm", FILE)
    assert failed_start(host) == "5"
    assert "rollway agent join TOKEN" in host.journal()
    host.write(FILE, right.replace("name =", "nam ="))
    assert failed_start(host) == "2"
    assert f"{FILE}:2: nam: expected a known key" in host.journal()
    host.write(FILE, right)
    host.run("systemctl", "start", UNIT)
    fleet.connects(host)


def failed_start(host: Host) -> str:
    """Start the agent in vain; gives the exit code with which it ended for good."""
    host.run("systemctl", "start", UNIT, code=1)
    assert (host.show(UNIT, "ActiveState"), host.show(UNIT, "SubState")) == ("failed", "failed")
    assert host.show(UNIT, "NRestarts") == "0"
    return host.show(UNIT, "ExecMainStatus")


def test_one_that_has_instances_is_tried_again_and_loses_nothing(fleet: Fleet) -> None:
    """What systemd keeps for it stays kept; corrected, it comes back by itself, and no user felt anything."""
    host = fleet.hosts[0]
    right, before = host.read(FILE), instances(host)
    with fleet.load() as users:
        host.write(FILE, "wrong")
        host.run("systemctl", "restart", "--no-block", UNIT)
        wait_for("it says what is wrong", lambda: f"rollway: {FILE}" in host.journal(), explain=host.journal)
        users.wait_for(fresh=50, kept=50)
        assert int(host.show(UNIT, "NFileDescriptorStore")) > len(before)
        assert host.show(UNIT, "ActiveState") == "activating"
        host.write(FILE, right)
        wait_for("it is back", lambda: host.show(UNIT, "SubState") == "running", explain=host.journal)
        fleet.connects(host)
        seen = users.end()
    assert (seen["failed"], seen["reasons"]) == (0, []), host.journal()
    assert int(host.show(UNIT, "NRestarts")) <= 2
    assert instances(host) == before
