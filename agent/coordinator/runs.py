"""Commands that operators run on hosts: where, and what is said meanwhile, carried from one end to the other.

Rules: the caller's connection waits until the host that is called has dialled; then frames go to and fro as they came,
and what the ends have not taken is bounded by their windows (`wire.runs`): who sends more is cut off. Either end's
going is the other's end. Nothing of it is stored: a coordinator that ends ends them. Not handled here: what is run, and
whether it may be (the host verifies the order itself).
"""

import secrets
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import anyio
import structlog
from msgspec import Struct
from sqlalchemy import Connection

from agent.coordinator.db import apps
from agent.coordinator.db.engine import Database
from agent.coordinator.db.environments import EnvironmentRow
from agent.coordinator.environments import Environments, settings_of
from agent.coordinator.hosts import Hosts
from agent.decisions.runs import Candidate, choose, disturbed, release_there
from agent.errors import NotFoundError, RefusedError, UnreachableError, VerificationError
from agent.link.runs import Line
from agent.linux import clock
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName
from agent.model.release import RunOrder
from agent.model.units import Milliseconds, iso
from agent.wire.control import Row
from agent.wire.runs import (
    CHUNK_BYTES,
    WINDOW,
    Ended,
    Frame,
    Refused,
    Started,
    encode,
    from_caller,
    from_host,
)

DIALS_WITHIN_S: Final = 10.0
WAITING_MAX: Final = 1_000
WAITING_BYTES_MAX: Final = 3 * WINDOW * CHUNK_BYTES
"""All windows, and room for words."""

_SEE: Final = "See `rollway status`; on the host, its agent's log says how it ended."

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Target(Struct, frozen=True):
    """Where a command would be run, and in which release: what the operator's order is to say."""

    host: HostName
    release: ReleaseRef


class _Run:
    """One command, from the caller's word to its end."""

    def __init__(self, order: RunOrder, by: str) -> None:
        self.order, self.by = order, by
        self.since_ms: Milliseconds = clock.now().wall_ms
        self.line: Line | None = None
        """The host's, once it has dialled."""
        self.dialled, self.over = anyio.Event(), anyio.Event()
        self.started: Started | None = None
        self.told = False
        """Whether the host has said its last word."""
        self.scope = anyio.CancelScope()
        self.lost = _lost(order.host)
        """What the caller hears where it has not."""

    def hear(self, frame: Frame) -> None:
        """Look at what the host says on its way to the caller. Raises VerificationError."""
        match from_host(frame):
            case Started() as started:
                self.started = started
            case Ended() | Refused():
                self.told = True


class Runs:
    """All that run now."""

    def __init__(self, database: Database, kept: Environments, hosts: Hosts) -> None:
        self._database, self._environments, self._hosts = database, kept, hosts
        self._runs: dict[str, _Run] = {}

    async def target(self, app: AppName, environment: EnvironmentName, host: HostName | None) -> Target:
        """Raises NotFoundError, RefusedError, UnreachableError."""
        row = await self._environments.get(app, environment)
        if row.runs is None:
            raise RefusedError(
                f"no release of {app} runs in {environment} yet", f"Swap to one: `rollway swap {app} {environment}`."
            )
        members = self._hosts.members(environment, settings_of(row))
        candidates = [self._candidate(row, member) for member in members]
        if host is not None:
            return await self._named(row, row.runs, host, candidates)
        chosen = choose(candidates, row.runs.name)
        if chosen is not None:
            return Target(chosen, row.runs)
        why = "; ".join(f"{one.host} {disturbed(one, row.runs.name)}" for one in candidates) or "there is none"
        error = RefusedError if any(one.connected for one in candidates) else UnreachableError
        raise error(
            f"no host of {environment} runs {row.runs.name} of {app} undisturbed: {why}",
            "Wait, or name a host: `--host`.",
        )

    async def _named(
        self, row: EnvironmentRow, runs: ReleaseRef, host: HostName, candidates: list[Candidate]
    ) -> Target:
        found = next((candidate for candidate in candidates if candidate.host == host), None)
        if found is None:
            known = ", ".join(candidate.host for candidate in candidates) or "none"
            raise NotFoundError(f"{row.environment} has no host {host}", f"It has {known}.")
        if not found.connected:
            raise UnreachableError(f"cannot run it on {host}: it is not connected", "See `rollway status`.")
        name = release_there(found.report, runs.name)
        if name == runs.name:
            return Target(host, runs)

        def read(connection: Connection) -> ReleaseRef:
            stored = apps.get_release(connection, row.app, row.environment, name)
            return ReleaseRef(name=stored.name, digest=stored.digest) if stored is not None else runs

        return Target(host, await self._database.run(read))

    def _candidate(self, row: EnvironmentRow, host: HostName) -> Candidate:
        links = self._hosts.links
        return Candidate(
            host=host,
            connected=links.is_connected(host),
            runs_commands=links.runs_commands(host),
            report=self._hosts.report(host, row.app, row.environment),
        )

    async def carry(self, caller: Line, ask: Frame, order: RunOrder, by: str) -> None:
        """Have `order` run, and carry all that is said of it, until either end is gone. Raises RollwayError."""
        number, run = secrets.token_urlsafe(16), _Run(order, by)
        told = log.bind(app=order.app, env=order.environment, host=order.host, by=by, program=order.words[0])
        self._runs[number] = run
        try:
            self._hosts.links.call(order.host, number)
            with anyio.move_on_after(DIALS_WITHIN_S):
                await run.dialled.wait()
            if run.line is None:
                raise UnreachableError(
                    f"{order.host} did not answer within {DIALS_WITHIN_S:.0f} s: nothing was run", "Take another host."
                )
            told.info("command asked for")
            with run.scope:
                await run.line.send(ask)
                await _between(caller, run.line, run)
            if not run.told:
                await caller.send(encode(Refused.of(run.lost)))
        finally:
            del self._runs[number]
            run.over.set()

    async def dialled(self, number: str, host: str, line: Line) -> None:
        """The host is there for a command that it was called for; returns when that is over. Raises NotFoundError."""
        run = self._runs.get(number)
        if run is None or run.order.host != host or run.line is not None:
            raise NotFoundError("nobody waits for this command any more")
        run.line = line
        run.dialled.set()
        await run.over.wait()

    def drop(self, host: HostName) -> None:
        """End all of a host that is no more."""
        for run in self._runs.values():
            if run.order.host == host:
                run.scope.cancel()

    def close(self) -> None:
        """End all: the coordinator stops."""
        for run in self._runs.values():
            run.lost = UnreachableError("the coordinator has stopped: the command is ended on its host", _SEE)
            run.scope.cancel()

    def rows(self, app: AppName | None, environment: EnvironmentName | None) -> Iterator[Row]:
        """Those that run, as `ps` shows them."""
        for run in self._runs.values():
            order, started = run.order, run.started
            if started is None or app not in (None, order.app) or environment not in (None, order.environment):
                continue
            process, _, _ = started.instance.partition(".")
            yield Row(
                host=order.host,
                app=order.app,
                environment=order.environment,
                release=order.release,
                process=ProcessName(process),
                instance=started.instance,
                pid=started.pid,
                state="ready",
                since=iso(run.since_ms),
                restarts=0,
                detail=f"{order.words[0]}, run by {run.by}",
            )


class _Way:
    """Frames from one end to the other: taken in whatever the other end does, so that a lost end is always noticed."""

    def __init__(self, source: Line, sink: Line, look: Callable[[Frame], object]) -> None:
        self._source, self._sink, self._look = source, sink, look
        self._waiting: deque[Frame] = deque()
        self._bytes = 0
        self._ended = False
        self._changed = anyio.Event()

    async def take(self) -> None:
        """Until the source is gone. Raises VerificationError."""
        while (frame := await self._source.receive()) is not None:
            self._look(frame)
            self._waiting.append(frame)
            self._bytes += len(frame)
            if len(self._waiting) > WAITING_MAX or self._bytes > WAITING_BYTES_MAX:
                raise VerificationError("more was sent about a command than was asked for")
            self._changed.set()
        self._ended = True
        self._changed.set()

    async def give(self) -> None:
        """Until all was given."""
        while self._waiting or not self._ended:
            if self._waiting:
                frame = self._waiting.popleft()
                await self._sink.send(frame)
                self._bytes -= len(frame)
            else:
                self._changed = anyio.Event()
                await self._changed.wait()


async def _between(caller: Line, host: Line, run: _Run) -> None:
    """Until the caller is gone, or the host is and the caller has all that it said."""
    there, back = _Way(caller, host, from_caller), _Way(host, caller, run.hear)
    async with anyio.create_task_group() as tasks:

        async def until_caller_leaves() -> None:
            await there.take()
            tasks.cancel_scope.cancel()

        tasks.start_soon(until_caller_leaves)
        tasks.start_soon(there.give)
        tasks.start_soon(back.take)
        await back.give()
        tasks.cancel_scope.cancel()


def _lost(host: HostName) -> UnreachableError:
    return UnreachableError(
        f"the connection to {host} was lost: the command is ended there, and how is not known", _SEE
    )
