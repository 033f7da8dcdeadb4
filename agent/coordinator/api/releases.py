"""`…/releases` for operators, `/agent/v1/releases` for hosts."""

from typing import Final

from aiohttp import web

from agent.artifacts import sign
from agent.coordinator.api.call import Call, answer

ENVELOPE_BYTES_MAX: Final = sign.ENVELOPE_BYTES_MAX + 1


async def create_release(call: Call) -> web.StreamResponse:
    envelope = await call.bytes(ENVELOPE_BYTES_MAX)
    release = await call.server.releases.create(call.app, call.environment, envelope)
    made = {
        "app": release.app,
        "environment": release.environment,
        "release": release.name,
        "build": release.build,
    }
    return answer(made, 201)


async def list_releases(call: Call) -> web.StreamResponse:
    fields = ("app", "environment", "build", "version", "commit", "created_at_s", "digest")
    shown = [
        {"release": row.name, "state": state} | {field: getattr(row, field) for field in fields}
        for row, state in await call.server.releases.list(call.app, call.environment)
    ]
    return answer(shown)


async def get_release(call: Call) -> web.StreamResponse:
    envelope = await call.server.releases.envelope(call.app, call.environment, call.release)
    release, digest = sign.verify_release(envelope), sign.payload_digest(envelope)
    return answer({"envelope": envelope.decode(), "release": release, "digest": digest})


async def get_envelope(call: Call) -> web.StreamResponse:
    envelope = await call.server.releases.envelope(call.app, call.environment, call.release)
    return web.Response(body=envelope, content_type="application/json")
