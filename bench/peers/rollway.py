"""The whole agent as its unit starts it: command, environment, and assignments from its state; no coordinator."""

import compileall
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.peers.machine import ROOT
from tests.e2e.fleet import fleet
from tests.e2e.repositories import repository

UNIT: Final = ROOT / "systemd" / "rollway-agent.service"
ENVIRONMENT: Final = "local"


@contextmanager
def assigned(folder: Path, apps: Mapping[str, str], net: str | None) -> Iterator[Path]:
    """A host to which a coordinator has assigned these apps (name -> rollway.toml); both have ended. Its agent.toml.

    The agent and its libraries have their bytecode beside them, as an installed one has.
    """
    for code in (ROOT / "agent", sysconfig.get_path("purelib")):
        compileall.compile_dir(code, quiet=2, workers=0)
    with fleet(folder, hosts=1, net=net) as one:
        for app, settings in apps.items():
            text = f"app = {json.dumps(app)}\n{settings}"
            source = repository(folder / "sources" / app, {"v1": {"rollway.toml": text}})
            one.rollway("build", str(source), "--ref", "v1")
            words = ("--ref", "v1", "--path", str(source), "--name", "v1")
            one.rollway("release", "create", app, ENVIRONMENT, *words)
            one.rollway("swap", app, ENVIRONMENT, "v1")
        (config,) = (folder / "up" / "hosts").glob("*/agent.toml")
    yield config


def command(config: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "agent", "agent", "run", "--config", str(config)]


def environment() -> dict[str, str]:
    """What the unit sets, for the agent of this checkout."""
    return {"PYTHONPATH": str(ROOT)} | environment_of_the_unit()


def environment_of_the_unit() -> dict[str, str]:
    lines = [line for line in UNIT.read_text().splitlines() if line.startswith("Environment=")]
    return dict(pair.split("=", 1) for line in lines for pair in line.removeprefix("Environment=").split())
