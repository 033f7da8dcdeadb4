"""The agent process: puts its parts together, and takes them apart in the reverse order.

Rules: what can be refused is refused before anything starts; one task group owns everything; at the end every instance
is drained first, only then is the group cancelled. Not handled here: what any of the parts does.
"""

import os
import random
import resource
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from socket import socket
from typing import Final

import anyio
import structlog
from aiohttp import web

from agent.errors import FailedError
from agent.host import health
from agent.host.control import Control
from agent.host.host import Host
from agent.host.keys import HostKey
from agent.host.routes import refuse_taken
from agent.host.tails import tail
from agent.link import tls
from agent.link.dial import Dialer
from agent.link.fetch import Fetcher
from agent.linux import clock, service, sockets, spawn, unixsocket
from agent.model.address import parse_address
from agent.model.assignment import AppReport
from agent.model.ids import AppName, EnvironmentName
from agent.model.roles import AgentSettings
from agent.supervisor.launchable import InstanceKey
from agent.supervisor.supervisor import Supervisor
from agent.telemetry import events
from agent.telemetry.output import Stdout
from agent.web.bounds import RUNNER_LIMITS
from agent.web.health import Health
from agent.wire.control import GROUP, Link
from agent.wire.messages import PROTOCOL, Hello
from agent.wire.sdnotify import Notice

FLUSH_S: Final = 2.0
HTTP_SHUTDOWN_S: Final = 1.0
OPEN_FILES: Final = 65_536

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def run(settings: AgentSettings) -> None:
    """Be the agent, until asked to end. Raises RollwayError when it cannot start."""
    spawn.keep_own_fds()
    anyio.run(serve, settings, backend_options={"use_uvloop": True})


async def serve(settings: AgentSettings) -> None:
    """Be the agent on a loop of the caller's; see `run`."""
    stdout = Stdout()
    events.configure(stdout.put)
    agent = Agent(settings, stdout)
    try:
        async with anyio.create_task_group() as tasks:
            await tasks.start(stdout.run)
            await agent.run()
            with anyio.move_on_after(FLUSH_S):
                await stdout.flush()
            tasks.cancel_scope.cancel()
    finally:
        agent.close()


class Agent:
    """All parts of one agent. Constructing it takes the lock and the ports, or raises RollwayError."""

    def __init__(self, settings: AgentSettings, stdout: Stdout) -> None:
        self._state_dir, run_dir = _folders(settings)
        self._lock = service.hold(self._state_dir, "an agent")
        key = HostKey.of(Path(settings.age_key))
        context = tls.client_context(settings.tls)
        self._sockets = [_listen(text) for text in settings.http_listen]
        self._link = Link()
        self._control = Control(run_dir, unixsocket.group_id(GROUP))
        self._supervisor = Supervisor(
            state_dir=self._state_dir,
            run_dir=run_dir,
            sink=stdout.write,
            on_change=self._instance_changed,
            on_event=_on_event,
            rlimits=_raise_open_files(),
        )
        self._host = Host(
            settings,
            supervisor=self._supervisor,
            source=Fetcher(coordinators=settings.coordinators, tls=context),
            key=key,
            on_report=self._report,
        )
        self._dialer = Dialer(
            coordinators=settings.coordinators,
            tls=context,
            hello=_hello(settings, key),
            rng=random.Random(),  # noqa: S311 - spreads reconnects, keeps no secret
            on_assign=self._host.assign,
            tail=lambda ask: tail(self._supervisor, ask),
            on_connected=self._linked,
        )
        self._health = Health(
            {
                "stored state": lambda: "" if self._host.loaded else "not loaded yet",
                "host": lambda: "drained: see `rollway agent undrain`" if self._host.drained else "",
            }
        )

    async def run(self) -> None:
        """Serve until asked to end, then drain."""
        ending = anyio.Event()
        async with anyio.create_task_group() as tasks, self._http():
            await tasks.start(service.watch_signals, ending)
            tasks.start_soon(service.watch_lifeline, ending)
            await tasks.start(self._supervisor.run)
            await tasks.start(self._host.run)
            tasks.start_soon(self._dialer.run)
            self._health.started = True
            async with self._control.serving(self._host, lambda: self._link):
                service.notify(Notice(ready=True, status="running"))
                log.info("agent started", state_dir=str(self._state_dir), pid=os.getpid())
                await ending.wait()
                service.notify(Notice(stopping=True, status="draining"))
                self._health.draining = True
                if await self._host.drain():
                    log.info("drained")
                else:
                    log.error("some instances did not end in time and were left")
            tasks.cancel_scope.cancel()

    def close(self) -> None:
        self._control.close()
        for listening in self._sockets:
            listening.close()
        os.close(self._lock)

    def _instance_changed(self, app: AppName, environment: EnvironmentName) -> None:
        self._host.instance_changed(app, environment)

    def _linked(self, connected: bool) -> None:  # noqa: FBT001 - one fact
        self._link = Link(connected, clock.now().wall_ms)
        log.info("link", connected=connected)

    def _report(self, apps: tuple[AppReport, ...]) -> None:
        self._dialer.report(apps)

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[None]:
        application = health.application(self._host, self._health)
        runner = web.AppRunner(application, shutdown_timeout=HTTP_SHUTDOWN_S, **RUNNER_LIMITS)
        await runner.setup()
        try:
            for listening in self._sockets:
                await web.SockSite(runner, listening).start()
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await runner.cleanup()


def _folders(settings: AgentSettings) -> tuple[Path, Path]:
    """The state and the run folder, made when missing. Instances of other users reach releases and their own folder."""
    folders = Path(settings.state_dir).resolve(), Path(settings.run_dir).resolve()
    for folder, mode in zip(folders, (0o755, 0o711), strict=True):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=mode)
        except OSError as error:
            raise FailedError(
                f"cannot make the folder {folder}: {error.strerror}", "Give the agent a folder that it may write to."
            ) from error
    return folders


def _raise_open_files() -> spawn.Rlimits:
    """Room for the sockets, pidfds and log pipes of many instances; gives the limits that instances are to have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES)), hard))
    return {resource.RLIMIT_NOFILE: (soft, hard)}


def _listen(text: str) -> socket:
    address = parse_address(text)
    refuse_taken(address)
    return sockets.listen(address)


def _hello(settings: AgentSettings, key: HostKey) -> Hello:
    return Hello(
        protocol=PROTOCOL,
        host=settings.name,
        boot_id=clock.boot_id(),
        version=version("rollway"),
        age_recipient=key.recipient,
        labels=settings.labels,
        environments=settings.environments,
        address=settings.address or "",
    )


def _on_event(key: InstanceKey, event: str, details: Mapping[str, str | int]) -> None:
    log.info(event, app=key.app, env=key.environment, instance=key.name, **details)
