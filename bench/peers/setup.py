"""Gets the peers into a folder below the user's cache: nothing is installed on the machine or into the project.

runit and s6 are Debian's packages, unpacked; supervisor and circus have a virtual environment, pm2 a folder of npm's.
What is there already is used. A peer that cannot be had is named with the reason, and left out.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

DEBIAN: Final = {
    "runit": ("runit",),
    "s6": ("s6", "libs6-2.11", "libskarnet2.13", "libexecline2.9"),
}
PYTHON: Final = {"supervisord": "supervisor==4.3.0", "circus": "circus==0.19.0"}
NODE: Final = {"pm2": ("pm2@7.0.4", "node_modules/.bin"), "ws": ("ws@8.23.0", "node_modules")}
"""Package, and the folder of it that matters."""
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rollway-bench"


class Peer(NamedTuple):
    """An installed peer: where its programs are, and its version."""

    folder: Path
    version: str


def have(name: str) -> Peer:
    """Install the peer unless it is there: a key above. Raises OSError or CalledProcessError."""
    if name in PYTHON:  # on the interpreter that we run on: one that is built otherwise has another speed and size
        return _python(CACHE / f"{name}-python{platform.python_version()}", PYTHON[name])
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    if name in DEBIAN:
        return _debian(folder, DEBIAN[name])
    return _node(folder, *NODE[name])


def _run(*words: str | Path, cwd: Path | None = None) -> str:
    return subprocess.run(words, cwd=cwd, check=True, capture_output=True, text=True).stdout


def _debian(folder: Path, packages: tuple[str, ...]) -> Peer:
    if not list(folder.glob(f"{packages[0]}_*.deb")):
        _run("apt-get", "download", "-qq", *packages, cwd=folder)
    for package in folder.glob("*.deb"):
        _run("dpkg-deb", "-x", package, folder / "root")
    (first,) = folder.glob(f"{packages[0]}_*.deb")
    return Peer(folder / "root" / "usr" / "bin", f"{packages[0]} {_run('dpkg-deb', '-f', first, 'Version').strip()}")


def _python(folder: Path, requirement: str) -> Peer:
    programs = folder / "bin"
    if not (programs / "pip").exists():
        _run(sys.executable, "-m", "venv", folder)
    _run(programs / "pip", "install", "-q", "--disable-pip-version-check", requirement)
    return Peer(programs, requirement.replace("==", " "))


def _node(folder: Path, package: str, place: str) -> Peer:
    if not (folder / place).exists():
        _run("npm", "install", "--prefix", folder, package, "--no-audit", "--no-fund", "--silent")
    return Peer(folder / place, f"{package.replace('@', ' ')} on node {node_version()}")


def node_version() -> str:
    return _run("node", "--version").strip()
