"""A singleton on real hosts: whatever is killed and cut off, it lives on one at most, by the clock of the machine."""

from pathlib import Path
from typing import Final

import pytest

from tests.e2e.repositories import repository
from tests.hosts.fleet import LEASE_S, QUICK, Fleet
from tests.hosts.machines import Host, wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("fleet")]
CLOCK: Final = Path(__file__).parent / "apps" / "clock.py"
GRACE_S: Final = 1
MARGIN_S: Final = 5
ROLLWAY_TOML: Final = f"""
app = "clock"
[process.clock]
command = "python3 clock.py"
singleton = true
[process.clock.stop]
grace = "{GRACE_S}s"
"""
BEATS: Final = "var/lib/beats"
NO_RESTART: Final = "/run/systemd/system/rollway-agent.service.d/once.conf"


def test_an_agent_killed_on_a_host_cut_off_never_leaves_two(fleet: Fleet, tmp_path: Path) -> None:
    """With nobody left on its host to end it, it is ended there before another host starts it, its daemons too."""
    for host in fleet.hosts:
        host.run("mkdir", "-p", f"/{BEATS}")
    release(fleet, tmp_path)
    first = next(host for host in fleet.hosts if beats(host))
    second = next(host for host in fleet.hosts if host is not first)
    wait_for("its daemon lives too", lambda: {"main", "child"} <= kinds(first), explain=first.journal)
    first.write(NO_RESTART, "[Service]\nRestart=no\n")
    first.run("systemctl", "daemon-reload")
    first.run("kill", "-KILL", first.show("rollway-agent", "MainPID"))
    first.cut()
    wait_for("another host has it", lambda: bool(beats(second)), explain=fleet.log)
    ended, began = beats(first)[-1], beats(second)[0]
    assert ended < began, "two at once"
    assert (began - ended) / 1e9 > MARGIN_S - 1, "the margin was used up"
    assert "runs out in" in first.journal("rollway-apps"), "the signal came before the end"
    first.heal()
    first.run("rm", NO_RESTART)
    first.run("systemctl", "daemon-reload")
    first.run("systemctl", "start", "rollway-agent")
    fleet.connects(first)
    stays_alone(fleet, first, second)


def stays_alone(fleet: Fleet, first: Host, second: Host) -> None:
    """The host that is back leaves it where it is, and takes it when the other is drained."""
    before = beats(first)
    second.run("rollway", "agent", "drain")
    wait_for("the first has it again", lambda: len(beats(first)) > len(before), explain=fleet.log)
    assert beats(second)[-1] < beats(first)[len(before)], "two at once"
    second.run("rollway", "agent", "undrain")
    fleet.serves(second)
    listed = fleet.rollway("lease", "list").stdout
    assert f"clock  production  clock    {first.name}" in listed, listed


def release(fleet: Fleet, folder: Path) -> None:
    """Let the fleet run it."""
    app, settings = folder / "clock", folder / "production.toml"
    repository(app, {"v1.0.0": {"clock.py": CLOCK.read_text(), "rollway.toml": ROLLWAY_TOML}})
    settings.write_text(QUICK)
    fleet.rollway("build", "--ref", "v1.0.0", cwd=app)
    fleet.rollway("release", "create", "clock", "production", "--ref", "v1.0.0", cwd=app)
    fleet.rollway("env", "set", "clock", "production", "--file", str(settings))
    fleet.rollway("swap", "clock", "production", "v1.0.0")
    assert LEASE_S > GRACE_S


def beats(host: Host) -> list[int]:
    """All moments at which anything of it lived there, in order; a line that its end has cut off is none."""
    texts = [file.read_text() for file in (host.root / BEATS).glob("*")]
    return sorted(int(line) for text in texts for line in text.rpartition("\n")[0].splitlines())


def kinds(host: Host) -> set[str]:
    return {file.name.partition("-")[0] for file in (host.root / BEATS).glob("*")}
