"""Real hosts as a person runs them: installed, joined, swapped, shut down, without power, without a network."""

import json

import pytest

from tests.hosts.fleet import VERSIONS, Fleet, instances
from tests.hosts.machines import Host, wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("fleet")]
UNITS = "/sys/fs/cgroup/system.slice"


def started(host: Host) -> str:
    """What would change if anything of the host's units or apps had been started anew."""
    return f"{host.show('rollway-agent', 'MainPID')} {host.show('rollway-apps', 'MainPID')} {instances(host)}"


def test_an_agent_needs_no_database_and_no_command_line_library(fleet: Fleet) -> None:
    """What is installed for an agent, and runs, has neither click nor rich, neither SQLAlchemy nor Alembic."""
    host = fleet.hosts[0]
    listed = host.run("/opt/rollway/bin/pip", "list", "--format=freeze", "--disable-pip-version-check").stdout.lower()
    assert "rollway==" in listed
    assert [name for name in ("click", "rich", "sqlalchemy", "alembic") if name in listed] == []
    assert host.show("rollway-agent", "ActiveState") == "active"


def test_a_host_is_listed_with_the_address_that_it_has(fleet: Fleet) -> None:
    """Though nobody has written one into agent.toml: a person sees where the host is."""
    listed = {row["host"]: row["address"] for row in json.loads(fleet.rollway("host", "list", "--json").stdout)}
    assert listed == {host.name: host.address for host in fleet.hosts}


def test_instances_live_in_the_unit_of_the_apps(fleet: Fleet) -> None:
    """Each instance has a cgroup of its own in the unit of the apps; in the agent's are itself and its forker."""
    host = fleet.hosts[0]
    agent = host.show("rollway-agent", "MainPID")
    others = set(host.read(f"{UNITS}/rollway-agent.service/cgroup.procs").split()) - {agent}
    assert [host.read(f"/proc/{pid}/cmdline").endswith("/agent/linux/forker\0") for pid in others] == [True]
    assert host.read(f"{UNITS}/rollway-apps.service/cgroup.procs").split() == []
    # Which two slots they have depends on how quickly earlier swaps drained: a draining slot is not given away.
    members = host.run("grep", "-r", "--include=cgroup.procs", "^", f"{UNITS}/rollway-apps.service").stdout.split()
    pid_of_leaf = dict(line.split("/cgroup.procs:") for line in members if "/hello.production.web." in line)
    assert sorted(map(int, pid_of_leaf.values())) == instances(host)
    assert len(pid_of_leaf) == 2
    assert host.read(f"{UNITS}/rollway-apps.service/holder/cgroup.procs").split() == [
        host.show("rollway-apps", "MainPID")
    ]


def test_apps_are_not_root(fleet: Fleet) -> None:
    """What names no user is rollway-app on a host that was installed as the README says, and writes in no release."""
    host = fleet.hosts[0]
    users = {host.show("rollway-agent", "MainPID"): "root", **dict.fromkeys(map(str, instances(host)), "rollway-app")}
    assert {pid: host.run("ps", "-o", "user:20=", "-p", pid).stdout.strip() for pid in users} == users
    releases = "/var/lib/rollway/releases"
    assert host.run("find", releases, "-type", "f").stdout
    assert host.run("find", releases, "!", "-user", "root").stdout == "", "releases are root's"
    assert host.run("runuser", "-u", "rollway-app", "--", "find", releases, "-writable", "!", "-type", "l").stdout == ""
    assert "apps that name no user run as rollway-app" in host.run("rollway", "agent", "check").stdout


def test_a_swap_is_not_felt(fleet: Fleet) -> None:
    """Hosts go to another release, one by one, and back, while users ask all of them: no request fails."""
    with fleet.load() as users:
        users.wait_for(fresh=100, kept=100)
        fleet.swap()
        fleet.swap()
        seen = users.end()
    assert (seen["failed"], seen["reasons"]) == (0, [])


def test_stopping_the_apps_drains_them(fleet: Fleet) -> None:
    """`systemctl stop rollway-apps` finishes what is in hand, whether the agent lives or not; start brings all back."""
    host = fleet.hosts[1]
    for does, drained in (("start", "drained by the agent"), ("stop", "drained by the records")):
        host.run("systemctl", does, "rollway-agent")
        agent = host.show("rollway-agent", "MainPID")
        with fleet.asked(host) as user:
            host.run("systemctl", "stop", "rollway-apps")
            assert fleet.version in user.communicate()[0]
        assert drained in host.journal("rollway-apps")
        assert (instances(host), host.show("rollway-agent", "MainPID")) == ([], agent)
        assert host.show("rollway-apps", "Result") == "success"
        host.run("systemctl", "start", "rollway-agent")
        assert "[-] apps: rollway-apps.service is not started" in host.run("rollway", "agent", "check", code=1).stdout
        host.run("systemctl", "start", "rollway-apps")
        fleet.serves(host)
        assert "[+] apps: rollway-apps.service is started" in host.run("rollway", "agent", "check", code=None).stdout
    fleet.connects(host)


def test_taking_the_units_out_drains_the_apps(fleet: Fleet) -> None:
    """`systemctl disable --now` finishes what is in hand too: the units stay known, with the words that drain."""
    host = fleet.hosts[1]
    with fleet.asked(host) as user:
        host.run("systemctl", "disable", "--now", "rollway-apps", "rollway-agent")
        assert fleet.version in user.communicate()[0]
    assert instances(host) == []
    assert host.run("systemctl", "is-enabled", "rollway-apps", code=1).stdout.strip() == "disabled"
    host.run("systemctl", "enable", "--now", "rollway-agent", "rollway-apps")
    fleet.serves(host)
    fleet.connects(host)


def test_where_nothing_can_start_is_found_before_anything_moves(fleet: Fleet) -> None:
    """A host whose apps' unit is not started fails a rollout in preflight; started, it serves again by itself."""
    first, second = fleet.hosts
    second.run("systemctl", "stop", "rollway-apps")
    second.run("rollway", "agent", "undrain")
    before = instances(first)
    other = next(version for version in VERSIONS if version != fleet.version)
    done = fleet.rollway("swap", "hello", "production", other, code=None)
    assert done.returncode != 0
    assert "h2 could not prepare" in done.stdout + done.stderr
    assert "rollway-apps.service is not started on this host" in done.stdout + done.stderr
    assert instances(first) == before
    second.run("systemctl", "start", "rollway-apps")
    fleet.serves(second)


def test_a_host_that_is_cut_off_serves_on(fleet: Fleet) -> None:
    """Without the network nothing on a host changes; when it is back the agent is, by itself."""
    host = fleet.hosts[0]
    before = started(host)
    host.cut()
    wait_for("the coordinator misses it", lambda: not fleet.is_connected(host), explain=fleet.log)
    assert fleet.version in host.run("curl", "-s", "http://127.0.0.1:8080/").stdout
    host.heal()
    fleet.connects(host)
    assert started(host) == before


def test_a_reboot_brings_back_what_ran(fleet: Fleet) -> None:
    """A host that was shut down, and one that lost its power, serve again after boot while the coordinator is away."""
    first, second = fleet.hosts
    fleet.stop()
    with fleet.asked(first) as user:
        first.stop()
        assert fleet.version in user.communicate()[0], "what was in hand is finished before the host is off"
    second.crash()
    first.boot()
    second.boot()
    for host in fleet.hosts:
        fleet.serves(host)
        assert host.show("rollway-agent", "NRestarts") == "0"
    fleet.start()
    for host in fleet.hosts:
        fleet.connects(host)
    with fleet.load() as users:
        fleet.swap()
        assert users.end()["failed"] == 0
