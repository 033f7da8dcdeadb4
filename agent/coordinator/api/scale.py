"""`…/scale`: how many instances of each process type run in an environment."""

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from agent.coordinator.api.call import Call, answer
from agent.coordinator.scaling import WAIT_S_MAX, Shown
from agent.errors import UsageError
from agent.model.ids import ProcessName, is_digest
from agent.settings.kinds import MAX_COUNT

TYPES_MAX = 100


class Counts(Struct, frozen=True):
    counts: dict[ProcessName, Annotated[int, Meta(ge=0, le=MAX_COUNT)]]


async def set_counts(call: Call) -> web.StreamResponse:
    body = await call.body(Counts)
    if not 0 < len(body.counts) <= TYPES_MAX:
        raise UsageError(f"expected 1 to {TYPES_MAX} process types, found {len(body.counts)}")
    changed = await call.server.scaling.change(call.app, call.environment, body.counts)
    return answer(_shown(await call.server.scaling.watch(call.app, call.environment, None, 0)) | {"changed": changed})


async def get_counts(call: Call) -> web.StreamResponse:
    after = call.request.query.get("after")
    if after is not None and not is_digest(after):
        raise UsageError(f"after: expected the version of an answer, found {after[:80]!r}")
    wait_s = call.number("wait_s", 0, int(WAIT_S_MAX)) or 0
    return answer(_shown(await call.server.scaling.watch(call.app, call.environment, after, wait_s)))


def _shown(shown: Shown) -> dict[str, object]:
    """The shape that scripts depend on."""
    return msgspec.structs.asdict(shown) | {"version": shown.version}
