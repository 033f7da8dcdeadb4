"""`/v1/status`, `/v1/ps`, `/v1/hosts`, `…/logs`, and the link: what hosts say, and how they say it."""

import anyio
from aiohttp import web
from sqlalchemy import Connection

from agent.coordinator import logs
from agent.coordinator.api.call import Call, answer, iso
from agent.coordinator.db import environments, rollouts
from agent.coordinator.db.environments import EnvironmentRow
from agent.coordinator.environments import settings_of
from agent.coordinator.hosts import Hosts
from agent.errors import UsageError
from agent.link.tls import peer_of
from agent.linux import clock
from agent.model.ids import ProcessName
from agent.model.process import AppSpec
from agent.model.rollout import Rollout
from agent.wire.messages import TailLogs

LINES_MAX = 10_000
SLOT_MAX = 10_000
SEND_S = 30.0
"""A reader of logs that takes nothing for so long is given up."""


async def link(call: Call) -> web.StreamResponse:
    peer = peer_of(call.request)
    if peer is None:
        raise UsageError("the link is for agents, which show a certificate")
    lives_s = peer.not_after_s - clock.now().wall_ms / 1000
    return await call.server.hosts.links.handle(call.request, peer, lives_s=lives_s)


async def list_hosts(call: Call) -> web.StreamResponse:
    return answer(_hosts(call.server.hosts))


async def status(call: Call) -> web.StreamResponse:
    app, environment = call.where
    await call.server.environments.check(app, environment)

    def read(connection: Connection) -> list[tuple[EnvironmentRow, Rollout | None]]:
        return [
            (row, rollouts.live_in(connection, row.app, row.environment))
            for row in environments.every(connection, app)
            if environment is None or row.environment == environment
        ]

    rows = await call.server.database.run(read)
    apps = [await _app(call, row, live) for row, live in rows if row.runs is not None or live is not None]
    return answer({"apps": apps, "hosts": _hosts(call.server.hosts)})


async def ps(call: Call) -> web.StreamResponse:
    app, environment = call.where
    await call.server.environments.check(app, environment)
    shown = [
        {
            "host": hello.host,
            "app": report.app,
            "environment": report.environment,
            "release": instance.release,
            "process": instance.process,
            "instance": instance.name,
            "pid": instance.pid,
            "state": instance.state,
            "since": iso(instance.since_ms),
            "restarts": instance.restarts,
            "detail": instance.detail,
        }
        for hello in call.server.hosts.hellos
        for report in call.server.hosts.reports(hello.host)
        for instance in report.instances
        if app in (None, report.app) and environment in (None, report.environment)
    ]
    return answer(shown)


async def stream_logs(call: Call) -> web.StreamResponse:
    row = await call.server.environments.get(call.app, call.environment)
    ask = TailLogs(
        tail=0,
        app=call.app,
        environment=call.environment,
        process=call.process,
        slot=call.number("slot", None, SLOT_MAX),
        lines=call.number("lines", 100, LINES_MAX) or 0,
        follow=call.number("follow", 0, 1) == 1,
    )
    members = call.server.hosts.members(row.environment, settings_of(row))
    async with logs.tail(call.server.hosts, members, ask) as batches:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(call.request)
        async for batch in batches:
            with anyio.fail_after(SEND_S):
                await response.write(batch)
        await response.write_eof()
        return response


async def _app(call: Call, row: EnvironmentRow, live: Rollout | None) -> dict[str, object]:
    settings, server = settings_of(row), call.server
    members = server.hosts.members(row.environment, settings)
    reports = [server.hosts.report(host, row.app, row.environment) for host in members]
    ready = sum(instance.state == "ready" for report in reports if report for instance in report.instances)
    wanted = 0
    if row.runs is not None:
        spec = await server.releases.spec(row.app, row.environment, row.runs)
        wanted = len(members) * _instances(spec, settings.scale)
    state = live.state if live is not None else "stable" if ready >= wanted else "degraded"
    return {
        "app": row.app,
        "environment": row.environment,
        "release": row.runs.name if row.runs is not None else None,
        "state": state,
        "ready": ready,
        "wanted": wanted,
    }


def _instances(spec: AppSpec, scale: dict[ProcessName, int]) -> int:
    return sum(scale.get(process.name, process.count) for process in spec.processes)


def _hosts(hosts: Hosts) -> list[dict[str, object]]:
    return [
        {
            "host": hello.host,
            "address": hello.address,
            "connected": hosts.links.is_connected(hello.host),
            "since": iso(hosts.since_ms(hello.host)),
            "labels": hello.labels,
            "environments": hello.environments,
            "version": hello.version,
        }
        for hello in hosts.hellos
    ]
