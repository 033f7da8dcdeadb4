"""The coordinator process: puts its parts together, and takes them apart in the reverse order.

Rules: what can be refused is refused before anything starts; one task group owns every rollout; hosts may connect once
every stored rollout goes on. Killed at any moment, it goes on from what is stored.
"""

import gc
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import structlog
from aiohttp import web

from agent.coordinator import identity
from agent.coordinator.api.routes import application
from agent.coordinator.db.engine import Database
from agent.coordinator.server import Server
from agent.errors import FailedError, RefusedError
from agent.link.tls import server_context
from agent.linux import fdstore, service
from agent.model.address import parse_address
from agent.model.roles import CoordinatorSettings
from agent.telemetry import events
from agent.telemetry.output import Stdout
from agent.telemetry.pulse import Pulse
from agent.web.bounds import RUNNER_LIMITS
from agent.web.health import Health
from agent.wire.sdnotify import Notice

FLUSH_S: Final = 2.0
SHUTDOWN_S: Final = 1.0
BACKLOG: Final = 4096
"""A whole fleet connects again at once; whom the kernel drops believes to be connected."""
_GC_THRESHOLDS: Final = (20_000, 10, 10)
"""A full collection costs 65 microseconds per connected agent, in which nobody is answered: make it rare."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def run(settings: CoordinatorSettings) -> None:
    """Be the coordinator, until asked to end. Raises RollwayError when it cannot start."""
    state_dir = Path(settings.state_dir)
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise FailedError(
            f"cannot make the folder {state_dir}: {error.strerror}",
            "Give the coordinator a folder that it may write to.",
        ) from error
    lock = service.hold(state_dir, "coordinator")
    try:
        database = Database(settings.database)
        try:
            lifeline = fdstore.inherited(os.environ).take(service.LIFELINE)
            anyio.run(serve, settings, database, lifeline, backend_options={"use_uvloop": True})
        finally:
            database.close()
    finally:
        os.close(lock)


async def serve(settings: CoordinatorSettings, database: Database, lifeline: int | None = None) -> None:
    """Be the coordinator on a loop of the caller's; see `run`."""
    stdout = Stdout()
    events.configure(stdout.put)
    gc.set_threshold(*_GC_THRESHOLDS)
    async with anyio.create_task_group() as tasks:
        await tasks.start(stdout.run)
        await _serve(settings, database, lifeline)
        with anyio.move_on_after(FLUSH_S):
            await stdout.flush()
        tasks.cancel_scope.cancel()


async def _serve(settings: CoordinatorSettings, database: Database, lifeline: int | None) -> None:
    identity.prepare(settings)
    ending = service.Ending()
    sockets = [_listen(text) for text in settings.listen]
    server = await Server.open(settings, database)
    context = server_context(settings.tls)
    pulse = Pulse(lambda _late_s: None, lambda: _status(server))
    health = Health({"event-loop": pulse.fault})
    async with anyio.create_task_group() as tasks:
        await tasks.start(service.watch_signals, ending)
        tasks.start_soon(service.watch_lifeline, ending, lifeline)
        await tasks.start(server.rollouts.run)
        await server.converge_all()
        tasks.start_soon(identity.keep, settings, context)
        async with _http(context, server, health, sockets):
            health.started = True
            tasks.start_soon(pulse.run)
            service.notify(Notice(ready=True))
            log.info("coordinator started", listen=settings.listen, pid=os.getpid())
            await ending.asked.wait()
            service.notify(Notice(stopping=True))
            health.draining = True
            server.runs.close()
            server.hosts.links.close()
        tasks.cancel_scope.cancel()
    log.info("coordinator ended")


def _status(server: Server) -> str:
    return f"hosts: {len(server.hosts.links.hosts)} connected; rollouts: {server.rollouts.under_way} under way"


@asynccontextmanager
async def _http(
    context: ssl.SSLContext, server: Server, health: Health, sockets: list[socket.socket]
) -> AsyncIterator[None]:
    """Serve on `sockets`. A handler ends when its client leaves: streams of logs would otherwise stay for ever."""
    runner = web.AppRunner(
        application(server, health),
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=SHUTDOWN_S,
        **RUNNER_LIMITS,
    )
    await runner.setup()
    try:
        for listening in sockets:
            await web.SockSite(runner, listening, ssl_context=context, backlog=BACKLOG).start()
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


def _listen(text: str) -> socket.socket:
    address = parse_address(text)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address.host, address.port))
    except OSError as error:
        listening.close()
        raise RefusedError(
            f"cannot listen on {text}: {error.strerror}", "Stop who listens there, or change `listen`."
        ) from error
    return listening
