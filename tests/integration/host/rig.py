"""A running host without a coordinator: all is real, but releases come from a folder and assignments from the test."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio
import structlog
from msgspec import Struct

from agent.host.host import Host
from agent.host.keys import HostKey
from agent.linux.journal import Journal
from agent.model.assignment import AppReport, Assignment
from agent.model.ids import AppName, EnvironmentName, HostName
from agent.model.roles import AgentSettings, TlsFiles
from agent.supervisor.supervisor import Supervisor
from agent.telemetry import events
from tests.integration.host.source import ENVIRONMENT, FolderSource

DEADLINE_S: Final = 30.0


class Rig(Struct):
    """A running host and the newest word of it."""

    host: Host
    supervisor: Supervisor
    key: HostKey
    output: list[bytes]
    reports: list[tuple[AppReport, ...]]
    events: list[dict[str, object]]
    changed: list[anyio.Event]

    @property
    def report(self) -> AppReport | None:
        return next(iter(self.reports[-1]), None) if self.reports else None

    async def until(self, said: Callable[[AppReport], bool]) -> AppReport:
        """The first report, from the newest on, of which `said` is true."""
        try:
            with anyio.fail_after(DEADLINE_S):
                while self.report is None or not said(self.report):
                    await self.changed[0].wait()
        except TimeoutError:
            raise AssertionError(f"never reported; last: {self.report}") from None
        assert self.report is not None
        return self.report

    async def until_event(self, name: str) -> dict[str, object]:
        """The first event called so, also one that has been."""
        with anyio.fail_after(DEADLINE_S):
            while not (found := [event for event in self.events if event["event"] == name]):
                await self.changed[0].wait()
        return found[0]

    async def until_done(self, assignment: Assignment) -> AppReport:
        await self.host.assign(assignment)
        return await self.until(
            lambda report: report.generation == assignment.generation and report.state in ("done", "failed")
        )


class Collected:
    """Where journals are sent: into a list."""

    def __init__(self, output: list[bytes]) -> None:
        self._output = output

    def offer(self, journal: Journal) -> None:
        self._output.append(journal.next_unsent(journal.unsent))
        journal.skip(journal.unsent)

    async def room(self, journal: Journal) -> None:
        assert not journal.unsent

    def when_room(self, journal: Journal, call: Callable[[], None]) -> None:
        raise AssertionError("all of it is taken at once")


def settings(folder: Path) -> AgentSettings:
    return AgentSettings(
        name=HostName("h1"),
        coordinators=("https://127.0.0.1:1",),
        environments=(ENVIRONMENT,),
        state_dir=str(folder / "state"),
        run_dir=str(folder / "run"),
        http_listen=(),
        tls=TlsFiles(ca="", certificate="", key=""),
        age_key=str(folder / "state" / "identity.age"),
    )


@asynccontextmanager
async def running(folder: Path, source: FolderSource, *, drain: bool = True) -> AsyncIterator[Rig]:
    """A host over `folder`. Without `drain` it ends as an agent that is killed does: its instances stay."""
    chosen = settings(folder)
    output: list[bytes] = []
    reports: list[tuple[AppReport, ...]] = []
    told: list[dict[str, object]] = []
    changed = [anyio.Event()]

    def tell() -> None:
        changed[0].set()
        changed[0] = anyio.Event()

    def on_report() -> None:
        reports.append(host.reports())
        tell()

    def put(line: bytes) -> None:
        told.append(json.loads(line))
        tell()

    def on_change(app: AppName, environment: EnvironmentName) -> None:
        host.instance_changed(app, environment)

    supervisor = Supervisor(
        run_dir=Path(chosen.run_dir),
        outlet=Collected(output),
        on_change=on_change,
        on_event=lambda _key, _event, _details, _level: None,
    )
    key = HostKey.of(Path(chosen.age_key))
    host = Host(chosen, supervisor=supervisor, source=source, key=key, on_report=on_report)
    with told_to(put):
        async with anyio.create_task_group() as below:
            await below.start(supervisor.run)
            async with anyio.create_task_group() as tasks:
                await tasks.start(host.run)
                try:
                    yield Rig(host, supervisor, key, output, reports, told, changed)
                finally:
                    with anyio.CancelScope(shield=True):
                        if drain:
                            assert await host.drain()
                    tasks.cancel_scope.cancel()
            below.cancel_scope.cancel()


@contextmanager
def told_to(put: Callable[[bytes], None]) -> Iterator[None]:
    """Events go through `put`, and afterwards where they went before."""
    handlers = logging.root.handlers[:]
    events.configure(put)
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers
        structlog.reset_defaults()
