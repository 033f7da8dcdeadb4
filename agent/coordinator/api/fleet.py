"""`/v1/status`, `/v1/ps`, `/v1/hosts`, `…/logs`, and the link: what hosts say, and how they say it."""

from collections import Counter
from collections.abc import Iterable
from typing import TypeGuard

import anyio
from aiohttp import web
from sqlalchemy import Connection

from agent.coordinator import logs
from agent.coordinator.api.call import Call, answer
from agent.coordinator.db import environments, rollouts
from agent.coordinator.db.environments import EnvironmentRow
from agent.coordinator.environments import settings_of
from agent.coordinator.hosts import Hosts
from agent.decisions.rollout import view
from agent.errors import UsageError
from agent.link.peers import peer_of
from agent.linux import clock
from agent.model.assignment import Assignment
from agent.model.figures import InstanceFigures
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName
from agent.model.rollout import Rollout
from agent.model.units import iso
from agent.wire.control import rows
from agent.wire.messages import TailLogs

LINES_MAX = 10_000
SLOT_MAX = 10_000
SEND_S = 30.0
"""A reader of logs that takes nothing for so long is given up."""

Assigned = dict[HostName, Assignment]


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

    def read(connection: Connection) -> list[tuple[EnvironmentRow, Rollout, Assigned]]:
        return [
            (row, newest, rollouts.assigned_in(connection, row.app, row.environment))
            for row in environments.every(connection, app)
            if environment is None or row.environment == environment
            if (newest := rollouts.newest_in(connection, row.app, row.environment)) is not None
        ]

    apps = [await _app(call, *found) for found in await call.server.database.run(read)]
    return answer({"apps": apps, "hosts": _hosts(call.server.hosts)})


async def ps(call: Call) -> web.StreamResponse:
    app, environment = call.where
    await call.server.environments.check(app, environment)
    hosts = [hello.host for hello in call.server.hosts.hellos]
    figures: dict[HostName, tuple[InstanceFigures, ...]] = {}
    if call.number("figures", 0, 1):
        await _ask(call.server.hosts, hosts, (app, environment), figures)
    shown = [
        row
        for host in hosts
        for report in call.server.hosts.reports(host)
        if app in (None, report.app) and environment in (None, report.environment)
        for row in rows(host, report, figures.get(host, ()))
    ]
    return answer([*shown, *call.server.runs.rows(app, environment)])


async def _ask(
    hosts: Hosts,
    names: Iterable[HostName],
    where: tuple[AppName | None, EnvironmentName | None],
    found: dict[HostName, tuple[InstanceFigures, ...]],
) -> None:
    """Ask all hosts at once what their instances use; one that does not answer leaves its own out."""

    async def of_host(host: HostName) -> None:
        found[host] = await hosts.links.figures(host, *where)

    async with anyio.create_task_group() as asked:
        for name in names:
            asked.start_soon(of_host, name)


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


async def _app(call: Call, row: EnvironmentRow, newest: Rollout, assigned: Assigned) -> dict[str, object]:
    """An environment that ever had a rollout: what runs, or how that ended, and how far the one under way is."""
    ready, wanted = await _ready(call, row, assigned)
    unknown = _unknown(call, row, assigned)
    steady = view.steady(ready, wanted, unknown)
    live = not newest.terminal
    done, hosts = view.progress(newest)
    return {
        "app": row.app,
        "environment": row.environment,
        "release": row.runs.name if row.runs is not None else None,
        "state": newest.state if live or row.runs is None else steady,
        "ready": ready,
        "wanted": wanted,
        "unknown": unknown,
        "to": newest.release.name if live else None,
        "hosts_done": done if live else None,
        "hosts": hosts if live else None,
        "aside": _aside(call, row),
    }


def _aside(call: Call, row: EnvironmentRow) -> dict[HostName, str]:
    """Hosts that a person has set aside, as they last said."""
    members = call.server.hosts.members(row.environment, settings_of(row))
    reports = {host: call.server.hosts.report(host, row.app, row.environment) for host in members}
    return {host: report.aside for host, report in reports.items() if report is not None and report.aside}


def _unknown(call: Call, row: EnvironmentRow, assigned: Assigned) -> list[HostName]:
    """Hosts that are to run it and are not connected (right after a start of the coordinator: none is yet)."""
    members = call.server.hosts.members(row.environment, settings_of(row))
    return [host for host in members if _is_to_run(assigned.get(host)) and not call.server.hosts.is_known(host)]


def _is_to_run(held: Assignment | None) -> TypeGuard[Assignment]:
    return held is not None and held.release is not None


async def _ready(call: Call, row: EnvironmentRow, assigned: Assigned) -> tuple[int, int]:
    """How many of the instances that the connected hosts are to run are ready, and how many these are.

    While a host swaps it may have more than it is to run: they do not make up for what another host lacks.
    """
    ready = wanted = 0
    singles: dict[ProcessName, bool] = {}
    """Whether any host has a ready one: it is one in the whole environment."""
    totals: dict[ProcessName, tuple[int, int]] = {}
    """How many are wanted in the whole environment, and are ready."""
    for host in call.server.hosts.members(row.environment, settings_of(row)):
        if (held := assigned.get(host)) is None or held.release is None or not call.server.hosts.is_known(host):
            continue
        report = call.server.hosts.report(host, row.app, row.environment)
        found = Counter(one.process for one in report.instances if one.state == "ready") if report else Counter()
        spec = await call.server.releases.spec(row.app, row.environment, held.release)
        for process in spec.processes:
            if process.singleton:
                singles[process.name] = singles.get(process.name, False) or found[process.name] > 0
                continue
            if process.total:
                totals[process.name] = (process.total, totals.get(process.name, (0, 0))[1] + found[process.name])
                continue
            count = held.counts.get(process.name, process.count)
            wanted += count
            ready += min(count, found[process.name])
    ready += sum(singles.values()) + sum(min(total, found) for total, found in totals.values())
    return ready, wanted + len(singles) + sum(total for total, _ in totals.values())


def _hosts(hosts: Hosts) -> list[dict[str, object]]:
    known: list[dict[str, object]] = [
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
    expected: list[dict[str, object]] = [
        {
            "host": member.name,
            "address": "",
            "connected": False,
            "since": iso(member.joined_ms),
            "labels": member.labels,
            "environments": member.environments,
            "version": "",
        }
        for member in hosts.expected
    ]
    return known + expected
