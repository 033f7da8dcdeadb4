"""The locks say what pyproject.toml says. Checked offline: names, versions, hashes; nothing resolved anew."""

import re
import tomllib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)[^\n]*\n(?P<rest>(?:    [^\n]*\n)*)", re.MULTILINE)
OLDEST_PYTHON = {"python_version": "3.11", "python_full_version": "3.11.2", "extra": ""}


@dataclass(frozen=True)
class Pin:
    """One locked package: its version, whether pyproject.toml asks for it itself, and whether its bytes are pinned."""

    version: Version
    asked_for: bool
    hashed: bool


def asked_for(pyproject: str) -> list[Requirement]:
    """Everything that `pyproject.toml` names: the agent's, every extra's, tests' and tools'; not the project itself."""
    tables = tomllib.loads(pyproject)
    lists = [
        tables["project"]["dependencies"],
        *tables["project"].get("optional-dependencies", {}).values(),
        *tables.get("dependency-groups", {}).values(),
    ]
    found = [Requirement(text) for requirements in lists for text in requirements]
    return [
        r
        for r in found
        if r.name != tables["project"]["name"] and (r.marker is None or r.marker.evaluate(OLDEST_PYTHON))
    ]


def pins(lock: str) -> dict[str, Pin]:
    return {
        canonicalize_name(found["name"]): Pin(
            Version(found["version"]), "(pyproject.toml" in found["rest"], "--hash=sha256:" in found["rest"]
        )
        for found in PIN.finditer(lock)
    }


def differences(pyproject: str, lock: str) -> list[str]:
    """Tell where the lock is not what pyproject.toml asks for."""
    wanted, locked = asked_for(pyproject), pins(lock)
    unwanted = {n for n, pin in locked.items() if pin.asked_for} - {canonicalize_name(r.name) for r in wanted}
    return sorted(
        [f"{r} is not locked" for r in wanted if canonicalize_name(r.name) not in locked]
        + [
            f"{r} is locked as {pin.version}"
            for r in wanted
            if (pin := locked.get(canonicalize_name(r.name))) and pin.version not in r.specifier
        ]
        + [f"{name} is locked, and pyproject.toml no longer names it" for name in unwanted]
        + [f"{name} is locked without a hash" for name, pin in locked.items() if not pin.hashed]
    )


def test_the_lock_is_up_to_date() -> None:
    """Whoever changed a requirement also ran `make lock`."""
    found = differences((ROOT / "pyproject.toml").read_text(), (ROOT / "requirements.lock").read_text())
    assert not found, "run make lock:\n" + "\n".join(found)


def test_hosts_get_what_was_tested() -> None:
    """What `make wheels` gathers for hosts is all that Rollway itself asks for, as the whole lock has it."""
    whole, hosts = (pins((ROOT / name).read_text()) for name in ("requirements.lock", "requirements-hosts.lock"))
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = tables["project"]
    asked = chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {canonicalize_name(Requirement(text).name) for text in asked} - {"rollway"}
    assert names <= hosts.keys()
    assert [name for name, pin in hosts.items() if name not in whole or whole[name].version != pin.version] == []
    assert [name for name, pin in hosts.items() if not pin.hashed] == []


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-hosts.lock"])
def test_a_lock_names_no_address(lock: str) -> None:
    """A lock fits every index, mirror or folder of wheels: it names none."""
    assert "://" not in (ROOT / lock).read_text()


PYPROJECT = """
[project]
name = "rollway"
dependencies = ["anyio>=4.16,<5", "old-python; python_version < '3.11'"]
[project.optional-dependencies]
all = ["rollway[cli]"]
[dependency-groups]
test = ["PyTest"]
"""
LOCK = """anyio==4.16.0 \\
    --hash=sha256:00
    # via rollway (pyproject.toml)
idna==3.1 \\
    --hash=sha256:01
    # via anyio
pytest==9.2.0 \\
    --hash=sha256:02
    # via
    #   pytest-timeout
    #   rollway (pyproject.toml:test)
"""
STALE = {
    "a requirement that was added": (
        PYPROJECT.replace('"PyTest"', '"PyTest", "ruff>=1"'),
        LOCK,
        "ruff>=1 is not locked",
    ),
    "a bound that was raised": (PYPROJECT.replace("4.16", "4.17"), LOCK, "anyio<5,>=4.17 is locked as 4.16.0"),
    "a requirement that was removed": (
        PYPROJECT.replace('"PyTest"', ""),
        LOCK,
        "pytest is locked, and pyproject.toml no longer names it",
    ),
    "a pin without hash": (PYPROJECT, LOCK.replace("    --hash=sha256:01\n", ""), "idna is locked without a hash"),
}


@pytest.mark.parametrize("stale", STALE.values(), ids=STALE)
def test_a_stale_lock_is_found(stale: tuple[str, str, str]) -> None:
    """Each way of forgetting `make lock` is named with the package."""
    pyproject, lock, difference = stale
    assert differences(pyproject, lock) == [difference]


def test_a_fresh_lock_has_no_differences() -> None:
    """What is not for this Python, or only comes along with others, is not missed."""
    assert differences(PYPROJECT, LOCK) == []
