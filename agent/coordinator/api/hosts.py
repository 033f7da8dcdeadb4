"""`/v1/hosts`: tokens that bring hosts in, labels, removal; `/join/v1`: the way in; a member's next certificate."""

from typing import Final

from aiohttp import web
from msgspec import Struct

from agent.coordinator.api.call import Call, answer
from agent.coordinator.db.members import Member
from agent.coordinator.enrolment import JoinRequest
from agent.errors import UnauthorizedError, UsageError
from agent.link.peers import peer_of
from agent.model import ids
from agent.model.ids import EnvironmentName, HostName
from agent.model.units import Milliseconds, iso

JOIN_BYTES_MAX: Final = 16 << 10
LABELS_MAX: Final = 64
VALUE_CHARS_MAX: Final = 128


class _NewToken(Struct):
    environments: tuple[str, ...]
    labels: dict[str, str] = {}
    name: str = ""
    ttl_ms: Milliseconds = 3_600_000


class _Labels(Struct):
    labels: dict[str, str | None]


async def create_token(call: Call) -> web.StreamResponse:
    asked = await call.body(_NewToken)
    _check_labels(dict(asked.labels))
    if not asked.environments or not all(map(ids.is_name, asked.environments)):
        raise UsageError(f"environments: expected at least one, each {ids.NAME_EXPECTED}", "Name them anew.")
    if asked.name:
        host_name(asked.name)
    text, token = await call.server.enrolment.new_token(
        environments=tuple(dict.fromkeys(map(EnvironmentName, asked.environments))),
        labels=asked.labels,
        name=asked.name,
        ttl_ms=asked.ttl_ms,
        by=call.caller.name,
    )
    shown = {
        "token": text,
        "name": token.name or None,
        "environments": token.environments,
        "labels": token.labels,
        "expires": iso(token.expires_ms),
    }
    return answer(shown, status=201)


async def change_labels(call: Call) -> web.StreamResponse:
    asked = await call.body(_Labels)
    _check_labels(asked.labels)
    return answer(_member(await call.server.hosts.label(_host(call), asked.labels)))


async def remove_host(call: Call) -> web.StreamResponse:
    member = await call.server.hosts.remove(_host(call))
    call.server.runs.drop(member.name)
    return answer(_member(member))


async def get_authority(call: Call) -> web.StreamResponse:
    """The CA's certificate: whoever asks cannot trust the answer yet, and compares its fingerprint."""
    return web.Response(body=call.server.enrolment.ca_certificate(), content_type="application/x-pem-file")


async def join(call: Call) -> web.StreamResponse:
    asked = await call.body(JoinRequest, JOIN_BYTES_MAX)
    return answer(await call.server.enrolment.join(asked, call.request.remote or ""), status=201)


async def renew_certificate(call: Call) -> web.StreamResponse:
    peer = peer_of(call.request)
    if peer is None:
        raise UnauthorizedError("no certificate was shown", "This is for agents, which have one.")
    return answer({"certificate": call.server.enrolment.renew(peer)}, status=201)


def _member(member: Member) -> dict[str, object]:
    return {"host": member.name, "environments": member.environments, "labels": member.labels}


def _host(call: Call) -> HostName:
    return host_name(call.request.match_info["host"])


def host_name(text: str) -> HostName:
    if not ids.is_host_name(text):
        raise UsageError(f"host: expected a name of 1 to 63 of a-z, 0-9, '-' and '.', found {text[:80]!r}")
    return HostName(text)


def _check_labels(labels: dict[str, str | None]) -> None:
    for key, value in labels.items():
        if not ids.is_name(key):
            raise UsageError(f"label: expected {ids.NAME_EXPECTED}, found {key[:80]!r}")
        if value is not None and (not value or len(value) > VALUE_CHARS_MAX or not value.isprintable()):
            raise UsageError(f"label {key}: expected 1 to {VALUE_CHARS_MAX} printable characters")
    if len(labels) > LABELS_MAX:
        raise UsageError(f"labels: expected at most {LABELS_MAX}, found {len(labels)}")
