"""How hosts come into the fleet: an operator's token, the host's certificate for it, and that certificate's renewal.

Rules: what a host may serve and how it is labelled is bound to the token, never asked for by the host. A token is good
for one key: whoever shows it first has it, and the same key may show it again until it expires, so that a host that
crashed in between only repeats itself. A secret is stored as its SHA-256 and never logged.
"""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

import anyio
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from agent.coordinator import ca
from agent.coordinator.attempts import Attempts
from agent.coordinator.db import members
from agent.coordinator.db.engine import Database
from agent.coordinator.db.members import Member, TokenForHost
from agent.coordinator.hosts import Hosts
from agent.errors import RefusedError, RollwayError, UnauthorizedError, UsageError
from agent.link.peers import Peer, key_id
from agent.linux import clock
from agent.model.ids import EnvironmentName, HostName, is_host_name
from agent.model.units import Milliseconds
from agent.wire.hosttoken import HostToken, encode_token

TTL_MS_MAX: Final = 7 * 24 * 3_600_000
TOKENS_MAX: Final = 10_000
_REMEMBERED_MS: Final = 24 * 3_600_000
"""For so long an expired token is told from one that never was."""
_ANOTHER: Final = "Ask an operator for a new one: `rollway host token`."

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class JoinRequest(Struct, frozen=True, kw_only=True):
    secret: str
    name: str
    csr: str
    """PEM, for a P-256 key, of the subject CN=name and nothing else."""


class Joined(Struct, frozen=True, kw_only=True):
    host: HostName
    certificate: str
    environments: tuple[EnvironmentName, ...]
    labels: dict[str, str]


class Enrolment:
    """`authority` is the folder of the CA; `coordinators` are the URLs that a token names."""

    def __init__(self, database: Database, hosts: Hosts, authority: Path, coordinators: tuple[str, ...]) -> None:
        self._database, self._hosts = database, hosts
        self._authority, self._coordinators = authority, coordinators
        self._attempts = Attempts()

    def ca_certificate(self) -> bytes:
        return (self._authority / "ca.pem").read_bytes()

    async def new_token(
        self,
        *,
        environments: tuple[EnvironmentName, ...],
        labels: dict[str, str],
        name: str,
        ttl_ms: Milliseconds,
        by: str,
    ) -> tuple[str, TokenForHost]:
        """A token as it is given to the host, and what is kept of it. Raises RefusedError where there is no CA key."""
        if not 0 < ttl_ms <= TTL_MS_MAX:
            raise UsageError("a host token lives longer than nothing and at most 168h", "Give another --ttl.")
        self._need_authority()
        now_ms, secret = clock.now().wall_ms, secrets.token_urlsafe(32)
        token = TokenForHost(
            hash=_hash(secret),
            name=name,
            environments=environments,
            labels=labels,
            made_by=by,
            expires_ms=now_ms + ttl_ms,
        )

        def write(connection: Connection) -> None:
            if members.drop_tokens(connection, now_ms - _REMEMBERED_MS) >= TOKENS_MAX:
                raise RefusedError("there are too many host tokens already", "They go a day after they expired.")
            members.store_token(connection, token)

        await self._database.run(write)
        fingerprint = ca.fingerprint(self._authority)
        log.info("host token made", by=by, host=name or None, environments=environments, labels=labels)
        return encode_token(HostToken(coordinators=self._coordinators, fingerprint=fingerprint, secret=secret)), token

    async def join(self, asked: JoinRequest, address: str) -> Joined:
        """Make the host a member and give it a certificate for the key of its request."""
        self._attempts.check(address)
        if not is_host_name(asked.name):
            raise UsageError("a host's name has 1 to 63 of a-z, 0-9, '-' and '.'", "Give another --name.")
        self._need_authority()
        key = ca.read_request(asked.csr.encode(), asked.name)
        name, key_name, now_ms = HostName(asked.name), key_id(key), clock.now().wall_ms
        try:
            with anyio.CancelScope(shield=True):  # a client that leaves must not part the database from the memory
                member = await self._database.run(
                    lambda connection: _admit(connection, asked.secret, name, key_name, now_ms)
                )
                self._hosts.joined(member)
        except RollwayError as error:
            if isinstance(error, UnauthorizedError):
                self._attempts.wrong(address)
            log.warning("a host may not join", host=name, address=address, reason=error.error)
            raise
        log.info("host joined", host=name, address=address, environments=member.environments, labels=member.labels)
        return Joined(
            host=name, certificate=self._certify(name, key), environments=member.environments, labels=member.labels
        )

    def renew(self, peer: Peer) -> str:
        """A new certificate for a host whose certificate still holds, for the same key."""
        self._need_authority()
        log.info("certificate renewed", host=peer.name)
        return self._certify(peer.name, peer.public_key)

    def _certify(self, name: str, key: EllipticCurvePublicKey) -> str:
        return ca.sign(self._authority, name, (), "agent", key=key, lifetime=ca.HOST).decode()

    def _need_authority(self) -> None:
        if not ca.is_authority(self._authority):
            raise RefusedError(
                f"this coordinator cannot certify hosts: there is no ca.key beside {self._authority}/ca.pem",
                "Let the coordinator make its own authority (remove [tls] from coordinator.toml), or give hosts "
                "certificates of yours.",
            )


def _admit(connection: Connection, secret: str, name: HostName, key: str, now_ms: Milliseconds) -> Member:
    """Spend the token on this host, or find that it was spent on this very key. Within one transaction."""
    shown = _hash(secret)
    found = [token for token in members.tokens(connection) if hmac.compare_digest(token.hash, shown)]
    if not found:
        raise UnauthorizedError("the token is not known to this coordinator", _ANOTHER)
    token = found[0]
    if token.expires_ms <= now_ms:
        raise RefusedError("the token has expired", _ANOTHER)
    if token.used_by and (token.used_by, token.host) != (key, name):
        raise RefusedError(f"the token was used already, by {token.host}", _ANOTHER)
    if token.name not in ("", name):
        raise RefusedError(f"the token is for the host {token.name}, not for {name}", f"Join with --name {token.name}.")
    before = members.get(connection, name)
    if token.used_by and (before is None or before.public_key != key or before.removed_ms):
        raise RefusedError(f"the token was used already, and {name} was removed since", _ANOTHER)
    lives = before is not None and not before.removed_ms
    if before is not None and lives and before.public_key != key:
        raise _taken(name)
    if not lives and members.is_known(connection, name):
        raise _taken(name)
    for other in members.every(connection):
        if other.public_key == key and other.name != name and not other.removed_ms:
            raise RefusedError(
                f"this host's key is that of {other.name}, which is a member already",
                "Was its disk copied? Remove its state folder's tls, then join again.",
            )
    if token.used_by and before is not None:
        return before
    if not lives:
        members.forget(connection, name)
    member = Member(name=name, public_key=key, environments=token.environments, labels=token.labels, joined_ms=now_ms)
    members.store(connection, member)
    members.store_token(connection, replace(token, used_by=key, host=name))
    return member


def _taken(name: HostName) -> RefusedError:
    return RefusedError(
        f"there is a host {name} already", "Join with another --name, or remove that one: `rollway host remove`."
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
