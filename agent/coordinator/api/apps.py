"""`/v1/apps`: apps and their environments' settings, state and config."""

import msgspec
from aiohttp import web
from msgspec import Struct
from sqlalchemy import Connection

from agent.coordinator.api.call import Call, answer
from agent.coordinator.configs import Change
from agent.coordinator.db import apps, environments, rollouts
from agent.coordinator.environments import LOCAL, load, settings_of
from agent.settings.environment import check_types

_VERSION_MAX = 1 << 31


class SettingsFile(Struct, frozen=True):
    file: str


async def list_apps(call: Call) -> web.StreamResponse:
    def read(connection: Connection) -> list[dict[str, object]]:
        rows = environments.every(connection)
        return [
            {"app": app, "environments": sorted({row.environment for row in rows if row.app == app} | {LOCAL})}
            for app in apps.apps(connection)
        ]

    return answer(await call.server.database.run(read))


async def list_environments(call: Call) -> web.StreamResponse:
    return answer(await call.server.environments.names(call.app))


async def get_environment(call: Call) -> web.StreamResponse:
    row = await call.server.environments.get(call.app, call.environment)
    return answer({"file": row.file, "settings": settings_of(row)})


async def set_environment(call: Call) -> web.StreamResponse:
    body = await call.body(SettingsFile)
    settings = load(call.environment, body.file)
    wanted = {*settings.scale, *settings.listen}
    check_types(settings, call.app, await call.server.builds.types(call.app, wanted), f"settings of {call.environment}")
    row = await call.server.environments.set(call.app, call.environment, body.file)
    await call.server.rollouts.settings_changed(row)
    return answer({"file": row.file, "settings": settings_of(row)})


async def get_state(call: Call) -> web.StreamResponse:
    app, environment, kept = call.app, call.environment, call.server.environments

    def read(connection: Connection) -> dict[str, object]:
        row = kept.need(connection, app, environment)
        live = rollouts.live_in(connection, app, environment)
        return {
            "runs": row.runs,
            "stable": row.stable,
            "sequence": row.sequence,
            "rollout": live.id if live is not None else None,
        }

    return answer(await call.server.database.run(read))


async def get_config(call: Call) -> web.StreamResponse:
    version = call.number("version", None, _VERSION_MAX)
    row, config = await call.server.configs.get(call.app, call.environment, version)
    shown = msgspec.structs.asdict(config) | {"secrets": sorted(config.secrets), "recipient": row.recipient}
    return answer(shown)


async def change_config(call: Call) -> web.StreamResponse:
    change = await call.body(Change)
    return answer({"version": await call.server.configs.change(call.app, call.environment, change)})
