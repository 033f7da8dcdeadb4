"""The agent process: puts its parts together, and takes them apart in the reverse order.

Rules: what can be refused is refused before anything starts; one task group owns everything. An agent that its service
manager stops leaves every instance as it is, for the next agent to take up; where the end of all was asked for, every
instance is drained first, only then is the group cancelled. Not handled here: what any of the parts does.
"""

import gc
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from socket import socket
from typing import Final

import anyio
import structlog
from aiohttp import web
from anyio import CapacityLimiter, to_thread
from msgspec.structs import replace

from agent import __version__
from agent.decisions.process.state import Level
from agent.errors import FailedError
from agent.host import certificate, health
from agent.host.control import Control
from agent.host.host import Host
from agent.host.keys import HostKey
from agent.host.routes import refuse_taken
from agent.host.tails import tail
from agent.link import tls
from agent.link.dial import Dialer
from agent.link.fetch import Fetcher
from agent.link.runs import dialled
from agent.linux import cgroup, clock, fdstore, fifo, orphans, service, sockets, spawn, unixsocket, users
from agent.linux.fdstore import FdStore, Inherited
from agent.linux.journal import Journal
from agent.linux.passage import Passage
from agent.model.address import parse_address
from agent.model.ids import AppName, EnvironmentName
from agent.model.roles import AgentSettings
from agent.supervisor.instance import STRANDED
from agent.supervisor.launchable import InstanceKey
from agent.supervisor.supervisor import Supervisor
from agent.telemetry import events
from agent.telemetry.metrics import Metrics, Seen
from agent.telemetry.output import OWN_JOURNAL, PASSAGE, Stdout
from agent.telemetry.pulse import Pulse
from agent.traffic import agentcheck
from agent.web.bounds import RUNNER_LIMITS
from agent.web.health import Health
from agent.wire.control import GROUP, Link
from agent.wire.messages import PROTOCOL, Hello
from agent.wire.sdnotify import Notice

FLUSH_S: Final = 2.0
HTTP_SHUTDOWN_S: Final = 1.0
ORPHANED_S: Final = 10.0
"""So long an agent whose `rollway up` was killed waits for another before it drains."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def run(settings: AgentSettings) -> None:
    """Be the agent, until asked to end. Raises RollwayError when it cannot start."""
    inherited = fdstore.inherited(os.environ)
    spawn.keep_own_fds()
    orphans.become_subreaper()
    orphans.reap_for_ever()
    gc.freeze()  # what is imported stays: no collection has to look through it while hundreds are started
    gc.set_threshold(10_000)  # nor, at each few, through all that was just made of those before them
    anyio.run(serve, settings, inherited, backend_options={"use_uvloop": True})


async def serve(settings: AgentSettings, inherited: Inherited) -> None:
    """Be the agent on a loop of the caller's; see `run`."""
    store = FdStore(os.environ.get("NOTIFY_SOCKET"))
    passage = _passage(store, inherited)
    stdout = Stdout(own=_own_journal(store, inherited), passage=passage)
    events.configure(stdout.put)
    agent = Agent(settings, stdout, store, inherited)
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

    def __init__(self, settings: AgentSettings, stdout: Stdout, store: FdStore, inherited: Inherited) -> None:
        self._store, self._inherited, self._stdout = store, inherited, stdout
        self._metrics, self._one_scrape = Metrics(), CapacityLimiter(1)
        self._said: str | None = None
        self._log: structlog.stdlib.BoundLogger = log.bind()
        """As it is configured by now: hundreds of instances tell much at once."""
        self._pulse = Pulse(self._metrics.lagged, self._status)
        self._state_dir, run_dir = _folders(settings)
        self._lock = service.hold(self._state_dir, "an agent")
        key = HostKey.of(Path(settings.age_key))
        self._settings, self._tls = settings, tls.client_context(settings.tls)
        self._sockets = [_listen(text) for text in settings.http_listen]
        self._checked = [_listen(text) for text in settings.agent_check]
        self._link = Link()
        self._control = Control(run_dir, unixsocket.group_id(GROUP))
        apps = cgroup.of_apps()
        self._supervisor = Supervisor(
            run_dir=run_dir,
            outlet=stdout,
            store=store,
            inherited=inherited,
            on_change=self._instance_changed,
            on_event=self._on_event,
            cgroup_root=apps,
            has_room=cgroup.Room(apps),
            launches=settings.launches,
            drops_logs=settings.logs_on_full == "drop",
            ring_bytes=settings.ring_bytes,
            rlimits=spawn.raise_open_files(),
        )
        self._host = Host(
            settings,
            supervisor=self._supervisor,
            store=store,
            inherited=inherited,
            source=Fetcher(coordinators=settings.coordinators, tls=self._tls),
            key=key,
            on_report=self._report,
        )
        self._dialer = Dialer(
            coordinators=settings.coordinators,
            tls=self._tls,
            hello=_hello(settings, key),
            rng=random.Random(),  # noqa: S311 - spreads reconnects, keeps no secret
            on_assign=self._host.assign,
            tail=lambda ask: tail(self._supervisor, ask),
            leases=self._host.leases,
            measure=self._supervisor.figures,
            on_run=lambda url, run: self._host.runs.begin(lambda: dialled(url, run, self._tls)),
            on_connected=self._linked,
        )
        self._health = Health(
            {
                "event-loop": self._pulse.fault,
                "stored-state": lambda: "" if self._host.loaded else "not loaded yet",
                "host": lambda: "drained: see `rollway agent undrain`" if self._host.drained else "",
            }
        )

    async def run(self) -> None:
        """Serve until asked to end; then drain, if that was asked for as well."""
        ending = service.Ending()
        async with anyio.create_task_group() as tasks, self._http():
            await tasks.start(service.watch_signals, ending)
            tasks.start_soon(service.watch_lifeline, ending, self._inherited.take(service.LIFELINE), ORPHANED_S)
            await tasks.start(self._supervisor.run)
            await tasks.start(self._host.run)
            await self._supervisor.until_taken_up()
            await to_thread.run_sync(self._inherited.drop_rest, self._store)
            tasks.start_soon(self._dialer.run)
            tasks.start_soon(self._pulse.run)
            for listening in self._checked:
                tasks.start_soon(agentcheck.serve, listening, partial(health.agent_check, self._host))
            tasks.start_soon(certificate.keep_renewed, self._settings.tls, self._settings.coordinators, self._tls)
            self._health.started = True
            async with self._control.serving(self._host, self._link_now):
                service.notify(Notice(ready=True, status="running"))
                log.info("agent started", state_dir=str(self._state_dir), pid=os.getpid())
                _say_who_apps_are(await to_thread.run_sync(users.of_apps))
                await ending.asked.wait()
                if ending.drain.is_set():
                    await self._drain()
                else:
                    self._host.stops_for_good = await service.stops_for_good()
                    service.notify(Notice(stopping=True, status="leaving the instances as they are"))
                    log.info("agent ends, its instances run on")
            tasks.cancel_scope.cancel()

    async def _drain(self) -> None:
        service.notify(Notice(stopping=True, status="draining"))
        self._health.draining, self._said = True, None
        if await self._host.drain():
            log.info("drained")
        else:
            log.error("some instances did not end in time and were left")

    def close(self) -> None:
        self._control.close()
        for listening in (*self._sockets, *self._checked):
            listening.close()
        os.close(self._lock)

    def _instance_changed(self, app: AppName, environment: EnvironmentName) -> None:
        self._host.instance_changed(app, environment)

    def _linked(self, connected: bool) -> None:  # noqa: FBT001 - one fact
        self._said = None
        self._link = Link(connected, clock.now().wall_ms)
        log.info("link", connected=connected)

    def _link_now(self) -> Link:
        lost = self._dialer.lost
        return self._link if lost is None else replace(self._link, reason=lost.reason, what_to_do=lost.what_to_do)

    def _on_event(self, key: InstanceKey, event: str, details: Mapping[str, str | int], level: Level) -> None:
        if event == STRANDED:
            self._metrics.stranded(key.app, key.environment, int(details["connections"]))
        tell = self._log.warning if level == "warning" else self._log.info
        tell(event, app=key.app, env=key.environment, instance=key.name, **details)

    def _status(self) -> str:
        """One line for `systemctl status`; looked at twice a second, and made anew when something has changed."""
        if self._said is None:
            self._said = self._status_now()
        return self._said

    def _status_now(self) -> str:
        found = [one.state for app in self._host.reports() for one in app.instances]
        if self._health.draining:
            return f"draining, {len(found) - found.count('stopped')} of {len(found)} instances left"
        link = "linked" if self._link.up else "no coordinator"
        return f"{found.count('ready')} of {len(found)} instances ready, {link}"

    async def _metrics_text(self) -> bytes:
        seen = Seen(
            version=__version__,
            apps=self._host.reports(),
            connected=self._link.up,
            unsent_bytes=self._stdout.unsent_bytes,
            sent_bytes=self._stdout.sent_bytes,
            lost_records=self._stdout.lost_records,
        )
        return await to_thread.run_sync(self._metrics.text, seen, limiter=self._one_scrape)

    def _report(self) -> None:
        self._said = None
        self._dialer.report(self._host.reports)

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[None]:
        application = health.application(self._host, self._health, self._metrics_text)
        runner = web.AppRunner(application, shutdown_timeout=HTTP_SHUTDOWN_S, **RUNNER_LIMITS)
        await runner.setup()
        try:
            for listening in self._sockets:
                await web.SockSite(runner, listening).start()
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await runner.cleanup()


def _passage(store: FdStore, inherited: Inherited) -> Passage:
    """What an earlier agent had under way to its reader goes on."""
    left = inherited.take(PASSAGE, fifo.is_fifo)
    if left is not None:
        return Passage(left)
    passage = Passage.create()
    store.drop(PASSAGE)
    store.put(PASSAGE, passage.fd)
    return passage


def _own_journal(store: FdStore, inherited: Inherited) -> Journal:
    """Own events that an earlier agent could not get rid of come out as well, and half of a record is completed."""
    left = inherited.take(OWN_JOURNAL)
    journal = Journal.adopt(left) if left is not None else None
    if journal is None:
        journal = Journal.create(OWN_JOURNAL)
        store.drop(OWN_JOURNAL)
        store.put(OWN_JOURNAL, journal.fd)
    # Whoever was told that this is kept may rely on all that follows.
    if store.keeps and not store.barrier():
        log.warning("the service manager does not answer: a next agent may not get back what runs")
    return journal


def _say_who_apps_are(name: str | None) -> None:
    """Whoever reads it once need not look for it at each app."""
    if name is None and os.geteuid() == 0:
        log.warning("apps that name no user run as root", reason=f"this host has no user {users.APPS}")
    else:
        log.info("apps that name no user run as", user=name or "the agent's own")


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


def _listen(text: str) -> socket:
    address = parse_address(text)
    refuse_taken(address)
    return sockets.listen(address)


def _hello(settings: AgentSettings, key: HostKey) -> Hello:
    return Hello(
        protocol=PROTOCOL,
        host=settings.name,
        boot_id=clock.boot_id(),
        version=__version__,
        age_recipient=key.recipient,
        labels=settings.labels,
        environments=settings.environments,
        address=settings.address or "",
        leases=True,
    )
