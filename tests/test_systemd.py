"""The files for systemd keep what the agent promises: no app feels its restart, and nothing of it leaks into one."""

import re
import subprocess
from pathlib import Path

import pytest

from agent.wire.control import GROUP

SYSTEMD = Path(__file__).parent.parent / "systemd"
UNITS = ("rollway-agent.service", "rollway-apps.service", "rollway-coordinator.service")
Unit = dict[str, dict[str, list[str]]]


def parse(text: str) -> Unit:
    """Read a unit: section, key, its values in order; repeated keys add up, as systemd's lists do."""
    unit: Unit = {}
    section: dict[str, list[str]] = {}
    for line in text.splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = unit.setdefault(heading[1], {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return unit


def read(name: str) -> Unit:
    return parse((SYSTEMD / name).read_text())


def lines_of(name: str) -> list[list[str]]:
    """Read a sysusers or tmpfiles file as lines of words."""
    lines = (SYSTEMD / name).read_text().splitlines()
    return [re.findall(r'"[^"]*"|\S+', line) for line in lines if line and not line.startswith("#")]


PROMISES = {
    "the agent comes back whenever it ends": ("rollway-agent", "Service", "Restart", "always"),
    "the agent comes back however often it ends": ("rollway-agent", "Unit", "StartLimitIntervalSec", "0"),
    "an agent with wrong settings waits for a person": ("rollway-agent", "Service", "RestartPreventExitStatus", "2 5"),
    "the agent is started when it says so": ("rollway-agent", "Service", "Type", "notify"),
    "an agent whose loop hangs is replaced": ("rollway-agent", "Service", "WatchdogSec", "30s"),
    "only the agent itself is killed with its unit": ("rollway-agent", "Service", "KillMode", "process"),
    "sockets, pidfds and rings survive the agent": ("rollway-agent", "Service", "FileDescriptorStoreMax", "16384"),
    "no log line is dropped by a rate limit": ("rollway-agent", "Service", "LogRateLimitIntervalSec", "0"),
    "instances have a cgroup subtree of their own": ("rollway-apps", "Service", "Delegate", "yes"),
    "the apps stop before the agent that drains them": ("rollway-apps", "Unit", "After", "rollway-agent.service"),
    "stopping the apps drains them": ("rollway-apps", "Service", "ExecStop", "/usr/bin/rollway agent drain"),
    "what is started again runs again": (
        "rollway-apps",
        "Service",
        "ExecStartPost",
        "-/usr/bin/rollway agent undrain",
    ),
    "an app cannot speak for the unit of all apps": ("rollway-apps", "Service", "NotifyAccess", "exec"),
    "an instance out of memory stops no other": ("rollway-apps", "Service", "OOMPolicy", "continue"),
    "all instances together have no task limit": ("rollway-apps", "Service", "TasksMax", "infinity"),
    "a coordinator whose loop hangs is restarted": ("rollway-coordinator", "Service", "WatchdogSec", "60s"),
    "the coordinator comes back whenever it ends": ("rollway-coordinator", "Service", "Restart", "always"),
    "a coordinator with wrong settings waits for a person": (
        "rollway-coordinator",
        "Service",
        "RestartPreventExitStatus",
        "2 5",
    ),
    "the coordinator comes back however often it ends": ("rollway-coordinator", "Unit", "StartLimitIntervalSec", "0"),
}


@pytest.mark.parametrize("promise", PROMISES.values(), ids=PROMISES)
def test_a_unit_keeps_the_promise(promise: tuple[str, str, str, str]) -> None:
    """What the design promises of a unit stands in it, once."""
    unit, section, key, value = promise
    assert read(f"{unit}.service")[section].get(key) == [value]


def test_an_app_inherits_nothing_of_the_agents_unit() -> None:
    """The agent's unit sets only what ends with the agent: no sandbox, limit, user or umask for apps to get."""
    stays_with_the_agent = {
        "Type", "NotifyAccess", "ExecStart", "Restart", "RestartSec", "KillMode", "TimeoutStopSec",
        "FileDescriptorStoreMax", "LogRateLimitIntervalSec", "Environment", "WatchdogSec",
        "RestartPreventExitStatus",
    }  # fmt: skip
    assert set(read("rollway-agent.service")["Service"]) - stays_with_the_agent == set()


def test_the_agents_environment_only_tunes_its_memory() -> None:
    """What the unit adds to the agent's environment is malloc's tuning, and nothing else."""
    (environment,) = read("rollway-agent.service")["Service"]["Environment"]
    assert dict(pair.split("=") for pair in environment.split()) == {
        "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TOP_PAD_": str(16 << 20),
        "MALLOC_ARENA_MAX": "1",
    }


def test_no_unit_stops_another() -> None:
    """Stopping or restarting one unit stops no other: they are ordered, and bound by nothing."""
    bound = {"Requires", "Requisite", "BindsTo", "PartOf", "Conflicts", "PropagatesStopTo", "Upholds"}
    assert [name for name in UNITS if bound & set(read(name)["Unit"])] == []


def test_no_unit_owns_the_folders_of_living_instances() -> None:
    """The run folder is not any unit's RuntimeDirectory=, which systemd would remove when that unit restarts."""
    assert [name for name in UNITS if "RuntimeDirectory" in read(name)["Service"]] == []


@pytest.fixture
def checkable(tmp_path: Path) -> list[Path]:
    """The units as systemd-analyze can check them where Rollway is not installed."""
    units = [tmp_path / name for name in UNITS]
    for unit in units:
        unit.write_text((SYSTEMD / unit.name).read_text().replace("/usr/bin/rollway", "/bin/true"))
    return units


def test_systemd_understands_the_units(checkable: list[Path]) -> None:
    """The units give systemd no reason for a warning: no unknown section, key or value."""
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *checkable], capture_output=True, text=True, check=False
    )
    ours = [line for line in checked.stderr.splitlines() if "rollway" in line]
    assert (checked.returncode, ours) == (0, [])


def test_the_coordinators_unit_is_hardened(checkable: list[Path]) -> None:
    """What systemd itself finds left to close is little: an exposure of at most 1.5 of 10."""
    coordinator = checkable[UNITS.index("rollway-coordinator.service")]
    checked = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", coordinator],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_coordinator_can_read_the_boot_id() -> None:
    """The hardening leaves /proc/sys readable: without the boot id no deadline could be kept across a restart."""
    assert "ProcSubset" not in read("rollway-coordinator.service")["Service"]


def test_every_user_that_is_named_is_made() -> None:
    """The coordinator's user, that of nameless instances, and the operators' group are made at installation."""
    lines = [words for role in ("agent", "coordinator") for words in lines_of(f"sysusers.d/rollway-{role}.conf")]
    named = {user for name in UNITS for user in read(name)["Service"].get("User", [])}
    assert {words[1] for words in lines if words[0] == "u"} == {"rollway-app", *named}
    assert {words[1] for words in lines if words[0] == "g"} == {GROUP}


def test_an_instance_finds_its_own_folder_and_lists_no_others() -> None:
    """The folders above instances can be walked through and not listed; releases are root's, and all may read them."""
    folders = {words[1]: words[2:5] for words in lines_of("tmpfiles.d/rollway-agent.conf") if words[0] == "d"}
    assert folders == {
        "/run/rollway": ["0711", "root", "root"],
        "/run/rollway/i": ["0711", "root", "root"],
        "/var/lib/rollway": ["0711", "root", "root"],
        "/var/lib/rollway/releases": ["0755", "root", "root"],
    }


def test_settings_with_secrets_are_not_everybodys_to_read() -> None:
    """Each role's file, which may hold a password, can be read by that role alone."""
    modes = {
        words[1]: words[2:5]
        for role in ("agent", "coordinator")
        for words in lines_of(f"tmpfiles.d/rollway-{role}.conf")
        if words[0] == "z"
    }
    assert modes == {
        "/etc/rollway/agent.toml": ["0600", "root", "root"],
        "/etc/rollway/coordinator.toml": ["0640", "root", "rollway-coordinator"],
    }


def test_a_library_upgrade_does_not_restart_apps() -> None:
    """An upgrade of libraries leaves the apps alone, and may restart the agent and the coordinator."""
    rules = re.findall(r"qr\((\S+)\)\} = 0;", (SYSTEMD / "needrestart-rollway.conf").read_text())
    assert [name for name in UNITS if any(re.search(rule, name) for rule in rules)] == ["rollway-apps.service"]
