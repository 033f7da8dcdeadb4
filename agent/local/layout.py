"""The folder of one `up`: everything that it, its coordinator and its agents keep, and nothing of theirs elsewhere.

    lock  net  client.toml  ca/
    coordinator/{coordinator.toml, tls/, state/, store/}
    hosts/h1/{agent.toml, tls/, state/, run/}

Rules: one `up` per folder, by a lock that the kernel drops with its holder. Certificates and settings are written anew
at each start, since addresses may have changed; the authority, the token and all state stay.
"""

import fcntl
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from agent.coordinator import ca
from agent.errors import RefusedError
from agent.linux.atomic import write_atomically
from agent.local.net import Block, parse_block

COORDINATOR_PORT: Final = 7070
HTTP_PORT: Final = 7071
_PRIVATE: Final = 0o700


class Host(Struct, frozen=True, rename={"name": "host"}):
    name: str
    address: str


class Layout(Struct, frozen=True):
    """What lies where below `folder`, an absolute path."""

    folder: Path

    @property
    def client_file(self) -> Path:
        return self.folder / "client.toml"

    @property
    def coordinator_file(self) -> Path:
        return self.folder / "coordinator" / "coordinator.toml"

    @property
    def hosts_folder(self) -> Path:
        return self.folder / "hosts"

    def state_folders(self) -> list[Path]:
        """Of the coordinator and of every host that there ever was."""
        return sorted(self.folder.glob("coordinator/state")) + sorted(self.hosts_folder.glob("h*/state"))

    def agent_file(self, name: str) -> Path:
        return self.hosts_folder / name / "agent.toml"

    def known_hosts(self) -> int:
        """How many hosts there were the last time; 0 at the first."""
        return sum(1 for _ in self.hosts_folder.glob("h*/agent.toml"))

    def last_block(self) -> Block | None:
        try:
            return parse_block((self.folder / "net").read_text())
        except FileNotFoundError:
            return None


def default_folder(environ: Mapping[str, str]) -> Path:
    """Where `up` keeps its state when it is not told."""
    home = environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "rollway" / "up"


def hold(folder: Path) -> int:
    """Lock `folder`, made if missing, while the descriptor that this gives is open; RefusedError names the holder."""
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise RefusedError(
            f"`rollway up` runs already in {folder}, as pid {holder or 'unknown'}",
            "Use that one, end it, or give another --dir.",
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd


def prepare(layout: Layout, block: Block, hosts: int) -> list[Host]:
    """Write what coordinator, agents and clients are to read; gives the hosts."""
    url = f"https://{block.coordinator}:{COORDINATOR_PORT}"
    fleet = [Host(f"h{number}", block.host(number)) for number in range(1, hosts + 1)]
    authority = layout.folder / "ca"
    ca.make_ca(authority)
    _write(layout.folder / "net", f"{block.network}")
    _prepare_coordinator(layout, authority, block)
    for host in fleet:
        _prepare_host(layout, authority, host, url)
    token = _token(layout.coordinator_file.parent / "state")
    _write(layout.client_file, _toml({"coordinator": url, "token": token, "ca": str(authority / "ca.pem")}))
    return fleet


def _prepare_coordinator(layout: Layout, authority: Path, block: Block) -> None:
    home = layout.coordinator_file.parent
    tls = _identity(authority, home / "tls", "coordinator", block.coordinator)
    settings: dict[str, object] = {
        "listen": [f"{block.coordinator}:{COORDINATOR_PORT}"],
        "advertise": [f"https://{block.coordinator}:{COORDINATOR_PORT}"],
        "state_dir": str(home / "state"),
        "store": f"file://{home / 'store'}",
    }
    _write(layout.coordinator_file, _toml(settings) + "\n[tls]\n" + _toml(tls))


def _prepare_host(layout: Layout, authority: Path, host: Host, url: str) -> None:
    file = layout.agent_file(host.name)
    tls = _identity(authority, file.parent / "tls", host.name, host.address)
    settings: dict[str, object] = {
        "name": host.name,
        "coordinators": [url],
        "environments": ["local"],
        "state_dir": str(file.parent / "state"),
        "run_dir": str(file.parent / "run"),
        "address": host.address,
    }
    http = {"listen": [f"{host.address}:{HTTP_PORT}"]}
    _write(file, _toml(settings) + "\n[http]\n" + _toml(http) + "\n[tls]\n" + _toml(tls))


def _identity(authority: Path, folder: Path, name: str, address: str) -> dict[str, str]:
    """A new certificate for a role, and where its files lie."""
    kind: ca.Kind = "coordinator" if name == "coordinator" else "agent"
    certificate, key = ca.issue(authority, name, (address,), kind=kind)
    files = {"ca": authority / "ca.pem", "certificate": folder / "certificate.pem", "key": folder / "key.pem"}
    _write(files["certificate"], certificate.decode())
    _write(files["key"], key.decode())
    return {key: str(file) for key, file in files.items()}


def _token(state: Path) -> str:
    """The operator's token: random, made once, known to the coordinator by the file."""
    file = state / "bootstrap_token"
    if not file.exists():
        _write(file, secrets.token_urlsafe(32))
    return file.read_text().strip()


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    write_atomically(file, text.encode())


def _toml(values: Mapping[str, object]) -> str:
    """Lines of TOML; a string or list of strings has the same spelling in JSON."""
    return "".join(f"{key} = {msgspec.json.encode(value).decode()}\n" for key, value in values.items())
