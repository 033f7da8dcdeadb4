"""`rollway dev`: puts the supervisor, the sockets and the screen together over a working tree, until it is to end.

Rules: what can be refused is refused before anything starts: words, files, missing config, addresses in use. Nothing is
kept: the run folder is temporary, no coordinator is asked, no release is made. The first signal drains, dependents
first, the second kills; whatever ends us, nothing that we started is left (`keeper`).
Not handled here: what is decided (`plan`), how it is said (`words`, `screen`).
"""

import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus
from msgspec import Struct
from msgspec.structs import replace

from agent.decisions.process.state import Level
from agent.decisions.swap.state import InstanceView
from agent.errors import FailedError, RollwayError
from agent.host.assignments import AppKey
from agent.host.ownports import OwnPorts
from agent.host.routes import Routes, Slot
from agent.linux import clock, spawn
from agent.linux.fdstore import FdStore
from agent.linux.removal import remove_tree
from agent.local.dev import plan, words
from agent.local.dev.keeper import Keeper, kill_all
from agent.local.dev.screen import Screen
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, ProcessName, ReleaseName
from agent.model.process import ProcessType, ReleaseCommand
from agent.model.units import Milliseconds, elapsed_ms
from agent.supervisor.launchable import AdminCommand, InstanceKey, Launchable
from agent.supervisor.supervisor import Supervisor

ENVIRONMENT: Final = EnvironmentName("dev")
RELEASE: Final = ReleaseRef(name=ReleaseName("dev"), digest=Digest("sha256:" + "0" * 64))
LINGER_MS: Final[Milliseconds] = 200
"""Long enough for an app to see its drain notice; nobody waits for idle connections of one's own browser."""
SLOW_MS: Final[Milliseconds] = 2_000
"""After which it is said why an instance is not ready yet."""
LOOK_S: Final = 1.0
FLUSH_S: Final = 1.0


class Dev(Struct, frozen=True, kw_only=True):
    """What is run, and how."""

    app: AppName
    folder: Path
    processes: tuple[ProcessType, ...]
    config: Mapping[str, str]
    host: str
    coloured: bool
    exit_on_crash: bool = False
    release: ReleaseCommand | None = None
    """What runs once before anything else, and must end well."""
    remarks: tuple[str, ...] = ()
    """Said before anything starts."""


def run(dev: Dev) -> None:
    """Be `rollway dev` until a signal, or until nothing is left to run. Raises RollwayError where that is a failure."""
    spawn.keep_own_fds()
    with ExitStack() as undone:
        run_dir = Path(tempfile.mkdtemp(prefix="rollway-"))
        undone.callback(remove_tree, run_dir)
        undone.callback(Keeper(run_dir).close)
        one = _Run(dev, run_dir)
        anyio.run(one.run)
    if one.is_stuck:  # a thread of ours waits for a terminal that takes nothing, and Python would wait for the thread
        os._exit(FailedError.exit_code if one.failure is not None else 0)
    if one.failure is not None:
        raise one.failure


class _Run:
    """One run of it."""

    def __init__(self, dev: Dev, run_dir: Path) -> None:
        self._dev = dev
        self._run_dir = run_dir
        self._types = {process.name: process for process in dev.processes}
        self._slots: dict[tuple[ProcessName, int], Slot] = {}
        self._begun: set[ProcessName] = set()
        self._was_ready: set[tuple[ProcessName, int]] = set()
        self._started: set[tuple[ProcessName, int]] = set()
        self._restarts: dict[tuple[ProcessName, int], int] = {}
        self._slow: set[tuple[ProcessName, int, int]] = set()
        self._news = anyio.Event()
        self._ending = False
        self._failed = False
        self.failure: RollwayError | None = None
        self.is_stuck = False
        """Whether nobody took the last lines."""

    async def run(self) -> None:
        self._admin = anyio.CancelScope()
        besides = ("release.1",) if self._dev.release is not None else ()
        self._screen = Screen(self._dev.processes, coloured=self._dev.coloured, besides=besides)
        self._supervisor = Supervisor(
            run_dir=self._run_dir,
            outlet=self._screen.stdout,
            lines=self._screen.lines,
            on_change=lambda _app, _environment: self._tell(),
            on_event=self._on_event,
            rlimits=spawn.raise_open_files(),
        )
        async with anyio.create_task_group() as output:
            await output.start(self._screen.stdout.run)
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._watch_signals)
                await tasks.start(self._supervisor.run)
                routes = Routes(AppKey(self._dev.app, ENVIRONMENT), tasks, FdStore(None), OwnPorts())
                try:
                    await self._open(routes)
                    await self._prepare()
                    await self._serve(routes)
                except RollwayError as error:
                    self.failure = error
                tasks.cancel_scope.cancel()
            routes.close()
            with anyio.move_on_after(FLUSH_S) as patience:
                await self._screen.stdout.flush()
            self.is_stuck = patience.cancelled_caught
            output.cancel_scope.cancel()

    async def _open(self, routes: Routes) -> None:
        """Take every address. Raises RefusedError naming who listens there."""
        for process in self._dev.processes:
            for slot in plan.slots(process):
                where = plan.addresses(process, self._dev.host)
                self._slots[process.name, slot] = await routes.slot(process, slot, where)
        for remark in self._dev.remarks:
            self._screen.say(remark)
        for process in self._dev.processes:
            if process.after:
                self._screen.say(f"{process.name} waits until {', '.join(process.after)} can be used")

    async def _prepare(self) -> None:
        """Run the release command, where that is asked for. Raises FailedError."""
        release = self._dev.release
        if release is None or self._ending:
            return
        command = AdminCommand(
            app=self._dev.app,
            environment=ENVIRONMENT,
            release=RELEASE.name,
            command=release.command,
            cwd=str(self._dev.folder),
            config=self._dev.config,
            timeout_ms=release.timeout_ms,
            limits=release.limits,
            sandbox=replace(release.sandbox, as_app=False),
        )
        with self._admin:
            ended = await self._supervisor.run_once(command)
            if not ended.succeeded:
                raise FailedError(f"the release command failed: {words.admin(ended)}", "See what it wrote, above.")

    async def _serve(self, routes: Routes) -> None:
        """Bring up what may begin, keep connections where somebody answers, bring down; ends when nothing lives."""
        while True:
            self._news = anyio.Event()
            views = self._views()
            self._route(routes, views)
            if self._ending:
                for view in plan.ending(self._dev.processes, views):
                    self._supervisor.stop(self._key(view.process, view.slot), LINGER_MS)
            else:
                for process in plan.beginning(self._dev.processes, self._begun, self._was_ready):
                    self._begun.add(process.name)
                    for slot in plan.slots(process):
                        self._launch(process, slot)
            if (self._begun or self._ending) and all(view.state == "stopped" for view in self._views()):
                break
            waits = any(view.state in ("starting", "backoff") for view in views)
            with anyio.move_on_after(LOOK_S if waits else None):
                await self._news.wait()
        if self._failed and not self._ending:
            raise FailedError("nothing is left to run, and not all of it ended well", "See what it said, above.")

    def _launch(self, process: ProcessType, slot: int) -> None:
        place = self._slots[process.name, slot]
        self._supervisor.launch(
            Launchable(
                key=self._key(process.name, slot),
                release=RELEASE,
                type=process,
                cwd=str(self._dev.folder),
                config=self._dev.config,
                addresses=tuple(map(str, plan.addresses(process, self._dev.host))),
                listeners=place.listeners,
                port=place.port,
                target=place.target,
                linger_ms=LINGER_MS,
            )
        )

    def _route(self, routes: Routes, views: tuple[InstanceView, ...]) -> None:
        now = clock.now()
        for view in views:
            where = (view.process, view.slot)
            if view.state == "ready":
                self._was_ready.add(where)
            if view.state == "stopped" or view.restarts > self._restarts.get(where, 0):
                routes.mend(view.process)
            self._restarts[where] = view.restarts
            slow = (*where, view.restarts)
            if view.state == "starting" and elapsed_ms(view.since, now) >= SLOW_MS and slow not in self._slow:
                self._slow.add(slow)
                self._screen.say(f"{view.process}.{view.slot} is not ready yet: {view.detail or 'it says nothing'}")
        for process in self._dev.processes:
            if process.name in self._begun:
                routes.route(plan.route(process, views, now))

    # What happens

    def _on_event(self, key: InstanceKey, text: str, fields: Mapping[str, str | int], _level: Level) -> None:
        process, where = self._types[key.process], (key.process, key.slot)
        view = next((one for one in self._views() if (one.process, one.slot) == where), None)
        listens = plan.addresses(process, self._dev.host)
        said = words.told(text, fields, process, view, plan.url(process, listens[0]) if listens else "")
        if said is not None:
            self._screen.say(f"{key.name} {said}")
        match text:
            case "started":
                self._started.add(where)
            case "could not be started" if where not in self._started:
                self._fail(f"cannot start {key.name}: {fields['reason']}", "Correct its command, or install it.")
            case "exited" if not self._ending:
                comes_back = view is not None and view.state in ("starting", "backoff")
                failed = fields["how"] != "exited with code 0"
                self._failed |= failed and not comes_back
                if self._dev.exit_on_crash and (failed or comes_back):
                    self._fail(f"{key.name} {fields['how']}", "Leave --exit-on-crash out to have it restarted.")

    def _fail(self, error: str, what_to_do: str) -> None:
        """End all, and say in the end why."""
        self.failure = self.failure or FailedError(error, what_to_do)
        self._end()

    def _end(self) -> None:
        self._ending = True
        self._admin.cancel()
        self._tell()

    def _tell(self) -> None:
        self._news.set()

    async def _watch_signals(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                if not self._ending:
                    self._screen.say("draining; once more to kill")
                    self._end()
                    continue
                self._screen.say("killing what still runs")
                for view in self._views():
                    self._supervisor.stop(self._key(view.process, view.slot), 0)
                await to_thread.run_sync(kill_all, self._run_dir)

    def _views(self) -> tuple[InstanceView, ...]:
        return self._supervisor.views(self._dev.app, ENVIRONMENT)

    def _key(self, process: ProcessName, slot: int) -> InstanceKey:
        return InstanceKey(self._dev.app, ENVIRONMENT, process, slot)
