"""`/v1/leases`: which host may run which singleton, and the word of a person that one runs it no more."""

from aiohttp import web

from agent.coordinator.api.call import Call, answer
from agent.coordinator.leases import Shown
from agent.errors import UsageError
from agent.model import ids
from agent.model.ids import HostName, ProcessName
from agent.model.lease import LeaseName


async def list_leases(call: Call) -> web.StreamResponse:
    app, environment = call.where
    await call.server.environments.check(app, environment)
    connected = call.server.hosts.links.is_connected
    return answer(
        [
            _shown(one, connected=connected(one.host))
            for one in call.server.leases.shown()
            if app in (None, one.name.app) and environment in (None, one.name.environment)
        ]
    )


async def release_lease(call: Call) -> web.StreamResponse:
    """`?host=` is whose it is as the person saw it."""
    process, host = call.request.match_info["process"], call.request.query.get("host", "")
    if not ids.is_name(process):
        raise UsageError(f"process: expected {ids.NAME_EXPECTED}, found {process[:80]!r}")
    name = LeaseName(call.app, call.environment, ProcessName(process))
    await call.server.leases.give_up(name, HostName(host))
    return answer({**name._asdict(), "host": host})


def _shown(one: Shown, *, connected: bool) -> dict[str, object]:
    return {**one.name._asdict(), "host": one.host, "connected": connected, "left_ms": one.left_ms}
