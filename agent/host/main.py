"""The agent process: puts its parts together, and takes them apart in the reverse order.

Rules: what can be refused is refused before anything starts; what the host has to run is started before anybody is
spoken with (`host.outside`); one task group owns everything. An agent that its service manager stops leaves every
instance as it is, for the next agent to take up; where the end of all was asked for, every instance is drained first,
only then is the group cancelled. Not handled here: what any of the parts does.
"""

import gc
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Final

import anyio
import structlog
from anyio import to_thread

from agent.decisions.process.state import Level
from agent.errors import FailedError
from agent.host import lean
from agent.host.control import Control
from agent.host.host import Host
from agent.host.keys import HostKey
from agent.host.routes import refuse_taken
from agent.host.source import AwaitedSource
from agent.link import tls
from agent.linux import cgroup, fdstore, fifo, orphans, service, sockets, spawn, unixsocket, users
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
from agent.telemetry.metrics import Metrics
from agent.telemetry.output import OWN_JOURNAL, PASSAGE, Stdout
from agent.telemetry.pulse import Pulse
from agent.wire.control import GROUP
from agent.wire.sdnotify import Notice

if TYPE_CHECKING:
    from agent.host.outside import Outside

FLUSH_S: Final = 2.0
LAUNCHED_WITHIN_S: Final = 3.0
LOOK_S: Final = 0.01
"""Between two looks whether anything still is to be launched: nothing has changed for so long."""
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
    looks = ThreadPoolExecutor(1)
    key = looks.submit(HostKey.of, Path(settings.age_key))  # a process of its own, as long as a loop takes to be made
    looks.shutdown(wait=False)
    anyio.run(serve, settings, inherited, key, backend_options={"use_uvloop": True})
    gc.freeze()  # nor at the end, over and over, through what ends with the process


async def serve(settings: AgentSettings, inherited: Inherited, key: Future[HostKey]) -> None:
    """Be the agent on a loop of the caller's; see `run`."""
    store = FdStore(os.environ.get("NOTIFY_SOCKET"))
    passage = _passage(store, inherited)
    stdout = Stdout(own=_own_journal(store, inherited), passage=passage)
    events.configure(stdout.put)
    agent = Agent(settings, stdout, store, inherited, key)
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

    def __init__(
        self, settings: AgentSettings, stdout: Stdout, store: FdStore, inherited: Inherited, key: Future[HostKey]
    ) -> None:
        self._store, self._inherited, self._stdout = store, inherited, stdout
        self._metrics = Metrics()
        self._said: str | None = None
        self._draining = False
        self._log: structlog.stdlib.BoundLogger = log.bind()
        """As it is configured by now: hundreds of instances tell much at once."""
        self._pulse = Pulse(self._metrics.lagged, self._status)
        self._state_dir, run_dir = _folders(settings)
        self._lock = service.hold(self._state_dir, "an agent")
        self._settings, self._tls = settings, tls.client_context(settings.tls)
        self._sockets = [_listen(text) for text in settings.http_listen]
        self._checked = [_listen(text) for text in settings.agent_check]
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
        self._source = AwaitedSource()
        self._key = key.result()
        self._host = Host(
            settings,
            supervisor=self._supervisor,
            store=store,
            inherited=inherited,
            source=self._source,
            key=self._key,
            on_report=self._report,
        )
        self._outside: Outside | None = None

    async def run(self) -> None:
        """Serve until asked to end; then drain, if that was asked for as well."""
        ending = service.Ending()
        async with anyio.create_task_group() as tasks:
            await tasks.start(service.watch_signals, ending)
            tasks.start_soon(service.watch_lifeline, ending, self._inherited.take(service.LIFELINE), ORPHANED_S)
            await tasks.start(self._supervisor.run)
            await tasks.start(self._host.run)
            await self._supervisor.until_taken_up()
            await to_thread.run_sync(self._inherited.drop_rest, self._store)
            await self._until_launched(ending)
            outside = self._outside = await self._made_outside()
            self._source.give(outside.source)
            async with outside.serving(self._control, self._sockets, self._checked):
                tasks.start_soon(self._pulse.run)
                service.notify(Notice(ready=True, status="running"))
                log.info("agent started", state_dir=str(self._state_dir), pid=os.getpid())
                _say_who_apps_are(await to_thread.run_sync(users.of_apps))
                await ending.asked.wait()
                if ending.drain.is_set():
                    await self._drain(outside)
                else:
                    self._host.stops_for_good = await service.stops_for_good()
                    service.notify(Notice(stopping=True, status="leaving the instances as they are"))
                    log.info("agent ends, its instances run on")
            tasks.cancel_scope.cancel()

    async def _until_launched(self, ending: service.Ending) -> None:
        """Leave the loop to the first launches, unless they need somebody outside, or take long: they may for ever."""
        seen = -1
        with anyio.move_on_after(LAUNCHED_WITHIN_S):
            while seen != self._host.news or self._host.is_launching:
                seen = self._host.news
                await anyio.sleep(LOOK_S)
                if self._source.is_wanted or ending.asked.is_set():
                    return

    async def _made_outside(self) -> "Outside":
        made = await to_thread.run_sync(_outside)
        return made(
            self._settings,
            host=self._host,
            recipient=self._key.recipient,
            tls=self._tls,
            stdout=self._stdout,
            metrics=self._metrics,
            pulse=self._pulse,
            on_link=self._say_anew,
        )

    async def _drain(self, outside: "Outside") -> None:
        service.notify(Notice(stopping=True, status="draining"))
        outside.health.draining = self._draining = True
        self._say_anew()
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
        if self._draining:
            return f"draining, {len(found) - found.count('stopped')} of {len(found)} instances left"
        link = "linked" if self._outside is not None and self._outside.linked else "no coordinator"
        return f"{found.count('ready')} of {len(found)} instances ready, {link}"

    def _say_anew(self) -> None:
        self._said = None

    def _report(self) -> None:
        self._say_anew()
        if self._outside is not None:
            self._outside.report()


def _outside() -> "type[Outside]":
    # In a thread, which takes turns with the loop: half of all that an agent imports.
    with lean.imports(http=True):
        from agent.host.outside import Outside  # noqa: PLC0415

    return Outside


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
