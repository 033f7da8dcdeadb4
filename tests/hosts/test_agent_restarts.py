"""The agent of a real host dies, restarts, stops and is upgraded, with users on its apps: nobody feels it."""

from collections.abc import Callable

import pytest

from tests.hosts.fleet import Fleet, instances
from tests.hosts.install import WHEELS
from tests.hosts.machines import Host, wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("fleet")]
TIMES = 10
DROP_IN = "/run/systemd/system/rollway-agent.service.d"


def kill(host: Host) -> None:
    host.run("systemctl", "kill", "--signal=KILL", "rollway-agent")


def restart(host: Host) -> None:
    host.run("systemctl", "restart", "rollway-agent")


def stop_and_start(host: Host) -> None:
    host.run("systemctl", "stop", "rollway-agent")
    host.run("systemctl", "start", "rollway-agent")


def upgrade(host: Host) -> None:
    host.run("/opt/rollway/bin/pip", "install", "-q", "--no-index", "--find-links", WHEELS, "--no-deps",
             "--force-reinstall", "rollway")  # fmt: skip
    host.run("systemctl", "daemon-reload")
    restart(host)


def agent(host: Host) -> str:
    """The pid of the agent that says it runs; nothing while there is none."""
    running = host.show("rollway-agent", "SubState") == "running"
    return host.show("rollway-agent", "MainPID") if running else ""


def renewed(host: Host, do: Callable[[Host], object]) -> None:
    """Do it, and wait for the next agent."""
    before = agent(host)
    do(host)
    wait_for(f"{host.name} has a new agent", lambda: agent(host) not in ("", "0", before), explain=host.journal)


FATES = {"killed": kill, "restarted": restart, "stopped and started": stop_and_start, "upgraded": upgrade}


@pytest.mark.parametrize("fate", FATES.values(), ids=FATES)
def test_nobody_feels_it(fleet: Fleet, fate: Callable[[Host], None]) -> None:
    """No request fails, no instance is another than before; the next agent swaps them as the one before would have."""
    host = fleet.hosts[0]
    before = instances(host)
    with fleet.load() as users:
        users.wait_for(fresh=50, kept=50)
        renewed(host, fate)
        fleet.connects(host)
        assert instances(host) == before
        fleet.swap()
        seen = users.end()
    assert (seen["failed"], seen["reasons"]) == (0, []), host.journal()
    assert not set(before) & set(instances(host))


def test_while_it_is_away_users_are_served(fleet: Fleet) -> None:
    """With the agent stopped, instances serve on."""
    host = fleet.hosts[1]
    before = instances(host)
    with fleet.load() as users:
        host.run("systemctl", "stop", "rollway-agent")
        users.wait_for(fresh=200, kept=200)
        assert instances(host) == before
        host.run("systemctl", "start", "rollway-agent")
        fleet.connects(host)
        seen = users.end()
    assert (seen["failed"], seen["reasons"]) == (0, []), host.journal()
    assert instances(host) == before


def test_ten_times(fleet: Fleet) -> None:
    """Ten agents of each host die or are restarted, one after another, with users on it all the time."""
    before = {host.name: instances(host) for host in fleet.hosts}
    with fleet.load() as users:
        for number in range(TIMES):
            for host in fleet.hosts:
                renewed(host, kill if number % 2 else restart)
        seen = users.end()
    assert (seen["failed"], seen["reasons"]) == (0, [])
    assert {host.name: instances(host) for host in fleet.hosts} == before


def test_one_that_hangs_is_replaced(fleet: Fleet) -> None:
    """An agent that does nothing any more is ended by systemd's watchdog and followed by another; nobody feels it."""
    host = fleet.hosts[0]
    before = instances(host)
    host.write(f"{DROP_IN}/soon.conf", "[Service]\nWatchdogSec=3s\n")
    host.run("systemctl", "daemon-reload")
    renewed(host, restart)
    with fleet.load() as users:
        renewed(host, lambda host: host.run("systemctl", "kill", "--signal=STOP", "rollway-agent"))
        users.wait_for(fresh=50, kept=50)
        seen = users.end()
    host.run("rm", "-r", DROP_IN)
    host.run("systemctl", "daemon-reload")
    fleet.connects(host)
    assert "Watchdog timeout" in host.journal()
    assert (seen["failed"], seen["reasons"]) == (0, []), host.journal()
    assert instances(host) == before
