"""`/v1/apps/{app}/builds` for operators, `/agent/v1/builds` for hosts."""

from contextlib import closing
from typing import BinaryIO, Final

import anyio.to_thread
from aiohttp import web

from agent.artifacts.manifest import BOUNDS
from agent.coordinator.api.call import Call, answer

CHUNK_BYTES: Final = 1 << 18
SEND_S: Final = 60.0
"""A client that takes nothing for so long is given up."""


async def put_archive(call: Call) -> web.StreamResponse:
    chunks = call.request.content.iter_chunked(CHUNK_BYTES)
    is_new = await call.server.builds.receive(call.app, call.digest, chunks)
    return answer({"id": call.digest}, 201 if is_new else 200)


async def put_build(call: Call) -> web.StreamResponse:
    build = await call.server.builds.describe(call.app, call.digest, await call.bytes(BOUNDS.manifest_bytes))
    return answer({"id": build.id, "app": build.app, "version": build.version, "commit": build.commit})


async def list_builds(call: Call) -> web.StreamResponse:
    rows = await call.server.builds.list(call.app)
    fields = ("id", "app", "version", "commit", "committed_at_s", "size_bytes")
    return answer([{field: getattr(row, field) for field in fields} for row in rows])


async def get_manifest(call: Call) -> web.StreamResponse:
    return web.Response(body=await call.server.builds.manifest(call.app, call.digest), content_type="application/json")


async def get_archive(call: Call) -> web.StreamResponse:
    file = await anyio.to_thread.run_sync(call.server.store.open_archive, call.app, call.digest)
    with closing(file):
        return await _stream(call.request, file)


async def _stream(request: web.Request, file: BinaryIO) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/zstd"})
    response.content_length = await anyio.to_thread.run_sync(file.seek, 0, 2)
    await anyio.to_thread.run_sync(file.seek, 0)
    await response.prepare(request)
    while chunk := await anyio.to_thread.run_sync(file.read, CHUNK_BYTES):
        with anyio.fail_after(SEND_S):
            await response.write(chunk)
    await response.write_eof()
    return response
