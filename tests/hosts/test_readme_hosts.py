"""The README's section about real hosts, followed literally on four of them: every block is run."""

from pathlib import Path

import pytest

from tests.e2e.fleet import ROOT
from tests.hosts.install import BLOCK, INSTALL, WHEELS, blocks
from tests.hosts.machines import Host, machines, wait_for

SHELL = ("bash", "-e", "-c")


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("readme of hosts")
def test_three_debian_hosts(wheels: Path, installed: str) -> None:
    """A person with a folder of wheels brings three hosts into a fleet, swaps an app on them and upgrades an agent."""
    make, coordinator, operator, install, token, join, swap, upgrade = blocks()
    assert (make.split("#")[0].strip(), install) == ("make wheels", INSTALL)  # as the fixtures have done them
    tutorial = next(block for block in BLOCK.findall((ROOT / "README.md").read_text()) if "git tag v1.0.0" in block)
    binds = {wheels: WHEELS}
    with machines() as net:
        here = net.host("c", binds=binds)
        here.run(*SHELL, coordinator)
        wait_for("the coordinator runs", lambda: here.show("rollway-coordinator", "SubState") == "running")
        here.run(*SHELL, operator)
        hosts = [net.host(name, base=installed, binds=binds) for name in ("h1", "h2", "h3")]
        for host in hosts:
            said = here.run(*SHELL, token).stdout.strip()
            host.run(*SHELL, f"TOKEN={said}\n{join}")
        here.run(*SHELL, tutorial)
        swapped = here.run(*SHELL, swap)
        assert swapped.stdout.count("hello from v1.0.0") == 3, swapped
        assert "uncommitted" not in swapped.stdout + swapped.stderr
        before = agent_and_app(hosts[0])
        hosts[0].run(*SHELL, upgrade)
        after = agent_and_app(hosts[0])
        assert after[0] != before[0], "a new agent"
        assert after[1] == before[1], "the same app"


def agent_and_app(host: Host) -> tuple[str, str]:
    return host.show("rollway-agent", "MainPID"), host.run("pgrep", "-f", "python3 server.py").stdout
