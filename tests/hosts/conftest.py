"""What the tests on real hosts share: one network for each test process, and hosts with Rollway installed on them."""

import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import ROOT
from tests.hosts.fleet import Fleet
from tests.hosts.image import image
from tests.hosts.install import INSTALL, WHEELS
from tests.hosts.machines import Net, machines


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder for all test processes of this run."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def wheels(shared: Path) -> Path:
    """What `make wheels` gives, made by the first that asks."""
    folder = shared / "wheels"
    with (shared / "wheels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            half = shared / "wheels-half"
            made = subprocess.run(
                ["make", "wheels", f"WHEELS={half}"], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert made.returncode == 0, made.stdout + made.stderr
            half.rename(folder)
    return folder


@pytest.fixture(scope="session")
def net() -> Iterator[Net]:
    """A network without hosts."""
    with machines() as made:
        yield made


@pytest.fixture(scope="session")
def installed(shared: Path, wheels: Path) -> str:
    """The layers of a host on which an agent is installed as the README says, made by the first that asks."""
    layer = shared / "installed"
    with (shared / "installed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layer.exists():
            with machines() as alone:
                host = alone.host("h0", binds={wheels: WHEELS})
                host.run("bash", "-e", "-c", INSTALL)
                host.stop()
                for its_own in ("etc/hostname", "etc/hosts", "etc/machine-id"):
                    (host.upper / its_own).unlink(missing_ok=True)
                subprocess.run(["cp", "-a", str(host.upper), str(layer)], check=True)
    return f"{layer}:{image()}"


@pytest.fixture(scope="session")
def fleet(net: Net, installed: str, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A coordinator outside and two hosts that have joined it and serve an app. Each test leaves them so."""
    made = Fleet(net, tmp_path_factory.mktemp("fleet"))
    made.start()
    try:
        for name in ("h1", "h2"):
            made.join(net.host(name, base=installed, binds={wheels: WHEELS}))
        made.open_app()
        yield made
    finally:
        made.stop()
