"""How a host comes into a fleet: a token in, a key, a certificate and an agent.toml out.

Rules: the key is written before anybody is asked, agent.toml last: until it is there the host has not joined, and doing
it all again goes on with the same key, for which the token is still good. A host that has joined joins again only as
itself: the same name and the same authority; its agent.toml is then left as its owner made it.
"""

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from agent.errors import FailedError, RefusedError, UsageError
from agent.host import identity
from agent.host.identity import Key
from agent.link import enrol
from agent.linux import atomic
from agent.model.ids import EnvironmentName, HostName, is_host_name
from agent.model.roles import AGENT_STATE_DIR, AgentSettings, TlsFiles
from agent.settings.agentfile import load_agent
from agent.settings.kinds import COORDINATOR_URL
from agent.wire.hosttoken import HostToken, decode_token

_FILE_BYTES_MAX: Final = 1 << 20


class Membership(Struct, frozen=True, kw_only=True):
    """The shape of `rollway agent join --json`."""

    host: HostName
    coordinators: tuple[str, ...]
    environments: tuple[EnvironmentName, ...]
    labels: dict[str, str]
    config: str
    not_served: tuple[EnvironmentName, ...]
    """Environments that the host may serve and that an older agent.toml of it leaves out."""


async def join(text: str, *, name: str | None, config: Path, state_dir: str, coordinators: Sequence[str]) -> Membership:
    """Join by the token `text`; `coordinators` are used instead of those that it names. Raises RollwayError."""
    token = decode_token(text)
    urls = tuple(coordinators) or token.coordinators
    wanted = _wanted(name, urls, state_dir)
    before = _before(config)
    if before is not None:
        _check_same(before, wanted.name if name else before.name, token, config)
        wanted = before
    try:
        key = _key(wanted)
        authority = await enrol.fetch_authority(urls, token.fingerprint)
        csr = identity.request_for(wanted.name, key)
        joined = await enrol.join(urls, authority, token.secret, wanted.name, csr)
        pem = identity.checked(joined.certificate, wanted.name, key.public_key())
        atomic.write_atomically(Path(wanted.tls.ca), authority.encode(), mode=0o644)
        atomic.write_atomically(Path(wanted.tls.certificate), pem)
        if before is None:
            config.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_atomically(config, _agent_toml(wanted, joined.environments).encode())
    except OSError as error:
        raise FailedError(
            f"cannot join: {error.strerror}: {error.filename}", "Run it as root, or name other folders; then again."
        ) from error
    return Membership(
        host=wanted.name,
        coordinators=wanted.coordinators,
        environments=joined.environments,
        labels=joined.labels,
        config=str(config),
        not_served=tuple(set(joined.environments) - set(before.environments)) if before else (),
    )


def _wanted(name: str | None, coordinators: tuple[str, ...], state_dir: str) -> AgentSettings:
    host = name if name is not None else socket.gethostname().lower()
    if not is_host_name(host):
        raise UsageError(f"expected a host name of a-z, 0-9, '-' and '.', found {host[:80]!r}", "Give one with --name.")
    for url in coordinators:
        try:
            COORDINATOR_URL.convert(url)
        except ValueError:
            raise UsageError(
                f"expected {COORDINATOR_URL.expected}, found {url[:80]!r}", "Give the coordinator's URL anew."
            ) from None
    return AgentSettings.below(HostName(host), coordinators, str(Path(state_dir).absolute()))


def _before(config: Path) -> AgentSettings | None:
    """What the host has joined as, if it has."""
    try:
        return load_agent(atomic.read(config, _FILE_BYTES_MAX).decode(), str(config))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read {config}: {error}", "Run it as root, or name another --config.") from error


def _check_same(before: AgentSettings, name: HostName, token: HostToken, config: Path) -> None:
    leave = f"To join anew, stop the agent and remove {config} and {Path(before.tls.key).parent}."
    if before.name != name:
        raise RefusedError(f"this host has joined already, as {before.name}: {config} says so", leave)
    try:
        held = ssl.PEM_cert_to_DER_cert(atomic.read(Path(before.tls.ca)).decode("ascii").strip())
    except (OSError, ValueError):
        return  # nothing that could be trusted by mistake
    if identity.fingerprint(held) != token.fingerprint:
        raise RefusedError("this host has joined the fleet of another authority already", leave)


def _key(wanted: AgentSettings) -> Key:
    _folders(wanted.tls)
    return identity.keep_key(Path(wanted.tls.key))


def _folders(tls: TlsFiles) -> None:
    for file in (tls.key, tls.certificate, tls.ca):
        folder = Path(file).parent
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True, mode=0o700)


def _agent_toml(wanted: AgentSettings, environments: tuple[EnvironmentName, ...]) -> str:
    """The least that the agent needs; a string or list of strings has the same spelling in JSON as in TOML."""
    values: dict[str, object] = {
        "name": wanted.name,
        "coordinators": wanted.coordinators,
        "environments": environments,
    }
    if wanted.state_dir != AGENT_STATE_DIR:
        values["state_dir"] = wanted.state_dir
    lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in values.items()]
    head = "# Written by `rollway agent join`. Labels are the coordinator's: `rollway host label`."
    return "\n".join([head, *lines, ""])
