"""The agent's end of the link: keeps one WebSocket to one of the coordinators, for ever.

Rules: it never ends by itself; a lost link is dialled again after a random pause, each time at the next coordinator.
Reports are the newest truth, not a queue: one that was overtaken is never sent.
Not handled here: what an assignment means, which log lines and figures there are; they come in as functions.
"""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import count
from random import Random
from typing import Final, Protocol

import aiohttp
import anyio
import structlog
from anyio.abc import TaskGroup
from msgspec import Struct
from msgspec.structs import replace

from agent.decisions.swap.lease import LEAD_MS
from agent.errors import RefusedError, VerificationError
from agent.link.channel import HEARTBEAT_S, Channel
from agent.link.enrol import why_refused
from agent.model.assignment import AppReport, Assignment, HostReport
from agent.model.figures import InstanceFigures
from agent.model.ids import AppName, EnvironmentName
from agent.model.units import Milliseconds
from agent.wire import messages
from agent.wire.messages import (
    AnswerLeases,
    AskFigures,
    AskLeases,
    Assign,
    CallRun,
    FiguresTold,
    Hello,
    Report,
    StopTail,
    TailEnd,
    TailLines,
    TailLogs,
    Welcome,
)
from agent.wire.session import AgentSide

CONNECT_S: Final = 10.0
REPORT_SPACING_S: Final = 0.2
REPORT_PERIOD_S: Final = 15.0
TAILS_MAX: Final = 32
FIGURES_PER_FRAME: Final = 500
_SPREAD_MS: Final = 1_000
_PAUSE_MS_MAX: Final = 30_000

LEASE_TURNS: Final = 3
"""So often its renewal is asked for before what runs under it is asked to go."""
TURN_MS_MAX: Final = 10_000
"""However long a lease is: who asks for nothing for a minute has its share of totals given to others, and what one host
gives back another is to have soon."""

Assigned = Callable[[Assignment], Awaitable[None]]
Tail = Callable[[TailLogs], AsyncGenerator[TailLines, None]]
Called = Callable[[str, str], None]
"""With the coordinator that calls, and for which command."""
Measure = Callable[[AppName | None, EnvironmentName | None], Awaitable[tuple[InstanceFigures, ...]]]


class LeaseSide(Protocol):
    """Who asks for leases, and hears what is granted."""

    changed: anyio.Event

    @property
    def hurried(self) -> bool:
        """Whether something here ends if no coordinator is found in time."""

    def linked(self, lease_ms: Milliseconds | None) -> None: ...

    def ask(self) -> AskLeases: ...

    async def answered(self, answer: AnswerLeases) -> None: ...


class Lost(Struct, frozen=True, kw_only=True):
    """How a connection ended, or why there was none; where the coordinator said what to do, that too."""

    reason: str
    what_to_do: str = ""
    was_up: bool = False
    """Whether the coordinator had welcomed us."""


def pause_ms(failures: int, spread_ms: Milliseconds, rng: Random) -> Milliseconds:
    """How long to wait after `failures` in a row: the first pause spreads the whole fleet, later ones double."""
    bound_ms = spread_ms if failures <= 1 else min(_PAUSE_MS_MAX, 500 << min(failures, 10))
    return round(rng.uniform(0, bound_ms))


def turn_ms(lease_ms: Milliseconds) -> Milliseconds:
    """How often a host says of what it has a lease or a share; 0: never."""
    return min(max(lease_ms - LEAD_MS, lease_ms // 4) // LEASE_TURNS, TURN_MS_MAX)


class Dialer:
    """One agent's link: `run` keeps it, `report` says what is to be known at the other end."""

    def __init__(
        self,
        *,
        coordinators: Sequence[str],
        tls: ssl.SSLContext,
        hello: Hello,
        rng: Random,
        on_assign: Assigned,
        tail: Tail,
        measure: Measure | None = None,
        leases: LeaseSide | None = None,
        on_run: Called | None = None,
        on_connected: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._coordinators = tuple(coordinators)
        self._hello = replace(hello, tells_figures=measure is not None, runs=on_run is not None)
        self._tls, self._rng, self._on_run = tls, rng, on_run or (lambda _url, _run: None)
        self._on_assign, self._tail, self._measure, self._on_connected = on_assign, tail, measure, on_connected
        self._side, self._leases, self._lease_ms = AgentSide(), leases, 0
        self._told: Callable[[], tuple[AppReport, ...]] | None = None
        self._changed = anyio.Event()
        self._spread_ms = _SPREAD_MS
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
        self._lost: dict[str, Lost] = {}
        self.connected = False

    @property
    def lost(self) -> Lost | None:
        """Why there is no link, as each coordinator that was dialled showed last; None where there is one."""
        if not self._lost:
            return None
        return Lost(
            reason="; ".join(f"{url}: {lost.reason}" for url, lost in self._lost.items()),
            what_to_do=next((lost.what_to_do for lost in self._lost.values() if lost.what_to_do), ""),
        )

    @property
    def epoch(self) -> int:
        """The highest epoch of a coordinator that has spoken."""
        return self._side.epoch

    def report(self, told: Callable[[], tuple[AppReport, ...]]) -> None:
        """Have told what `told` gives by the time it is sent: there is news."""
        self._told = told
        self._changed.set()

    async def run(self) -> None:
        """Keep the link. Ends by being cancelled only."""
        failures = 0
        for turn in count():
            url = self._coordinators[turn % len(self._coordinators)]
            lost = self._lost[url] = await self._dial(url.rstrip("/"))
            failures = 1 if lost.was_up else failures + 1
            tell = self._log.warning if failures == 1 else self._log.debug
            event = "link lost" if lost.was_up else "cannot connect"
            tell(event, coordinator=url, reason=lost.reason, failures=failures)
            pause = pause_ms(failures, self._spread_ms, self._rng)
            if self._leases is not None and self._leases.hurried:
                pause = min(pause, turn_ms(self._lease_ms))
            await anyio.sleep(pause / 1000)

    async def _dial(self, url: str) -> Lost:
        """One connection, to its end."""
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
                with anyio.fail_after(CONNECT_S):
                    socket = await http.ws_connect(
                        f"{url}/agent/v1/link",
                        ssl=self._tls,
                        heartbeat=HEARTBEAT_S,
                        compress=0,
                        max_msg_size=messages.FRAME_BYTES_MAX,
                    )
                return await self._converse(socket, url)
        except TimeoutError:
            return Lost(reason=f"no answer within {CONNECT_S:.0f} s")
        except aiohttp.WSServerHandshakeError as error:
            if (said := await why_refused(url, self._tls)) is not None:
                return Lost(reason=said.error, what_to_do=said.what_to_do)
            return Lost(reason=f"the coordinator answered {error.status} {error.message}")
        except aiohttp.ServerDisconnectedError:
            return Lost(reason="closed right after the handshake: was this host's certificate refused?")
        except (aiohttp.ClientError, OSError) as error:
            return Lost(reason=str(error) or type(error).__name__)

    async def _converse(self, socket: aiohttp.ClientWebSocketResponse, url: str) -> Lost:
        welcomed, channel = False, Channel(socket)
        try:
            with channel.scope:
                async with anyio.create_task_group() as group:
                    await channel.send(messages.encode(self._hello))
                    welcomed = await self._welcomed(channel)
                    if welcomed:
                        group.start_soon(self._send_reports, channel)
                        group.start_soon(self._send_asks, channel)
                        await self._listen(channel, group, url)
                    group.cancel_scope.cancel()
        except* (RefusedError, VerificationError) as errors:
            channel.lost(str(errors.exceptions[0]))
        finally:
            self._set_connected(connected=False)
            await channel.close()
        return Lost(reason=channel.reason, was_up=welcomed)

    async def _welcomed(self, channel: Channel) -> bool:
        with anyio.move_on_after(CONNECT_S):
            if (frame := await channel.receive()) is None:
                return False
            welcome = messages.decode_from_coordinator(frame)
            if not isinstance(welcome, Welcome):
                raise VerificationError("its first word was no welcome")
            self._side = self._side.welcomed(welcome)
            self._spread_ms, self._lease_ms = welcome.spread_ms, welcome.lease_ms
            self._set_connected(connected=True)
            return True
        channel.lost(f"connected, but not welcomed within {CONNECT_S:.0f} s")
        return False

    def _set_connected(self, *, connected: bool) -> None:
        if self.connected != connected:
            self.connected = connected
            self._lost.clear()
            self._on_connected(connected)
            if self._leases is not None:
                self._leases.linked(self._lease_ms if connected else None)

    async def _listen(self, channel: Channel, group: TaskGroup, url: str) -> None:
        tails: dict[int, anyio.CancelScope] = {}
        while (frame := await channel.receive()) is not None:
            match messages.decode_from_coordinator(frame):
                case Assign(assignment=assignment):
                    side = self._side.assigned(assignment)
                    if side is not None:
                        await self._on_assign(assignment)
                        self._side = side
                case TailLogs() as ask:
                    await self._begin_tail(channel, ask, tails, group)
                case StopTail(tail=tail):
                    if tail in tails:
                        tails[tail].cancel()
                case AnswerLeases() as answer:
                    if self._leases is not None:
                        await self._leases.answered(answer)
                case CallRun(run=run):
                    self._on_run(url, run)
                case AskFigures() as wanted:
                    group.start_soon(self._send_figures, channel, wanted)
                case Welcome():
                    raise VerificationError("welcomed twice")

    async def _send_reports(self, channel: Channel) -> None:
        for sequence in count():
            while self._told is None:
                await self._changed.wait()
            changed, apps = anyio.Event(), self._told()
            self._changed = changed
            report = HostReport(host=self._hello.host, boot_id=self._hello.boot_id, sequence=sequence, apps=apps)
            await channel.send(encode_report(report))
            await anyio.sleep(REPORT_SPACING_S)
            with anyio.move_on_after(REPORT_PERIOD_S - REPORT_SPACING_S):
                await changed.wait()

    async def _send_asks(self, channel: Channel) -> None:
        leases, turn_s = self._leases, turn_ms(self._lease_ms) / 1000
        while leases is not None and turn_s:
            question = leases.ask()
            changed = leases.changed
            await channel.send(messages.encode(question))
            await anyio.sleep(min(REPORT_SPACING_S, turn_s))
            with anyio.move_on_after(turn_s - REPORT_SPACING_S):
                await changed.wait()

    async def _begin_tail(
        self, channel: Channel, ask: TailLogs, tails: dict[int, anyio.CancelScope], group: TaskGroup
    ) -> None:
        if ask.tail in tails or len(tails) == TAILS_MAX:
            await channel.send(messages.encode(TailEnd(tail=ask.tail)))
        else:
            tails[ask.tail] = anyio.CancelScope()
            group.start_soon(self._send_tail, channel, ask, tails)

    async def _send_tail(self, channel: Channel, ask: TailLogs, tails: dict[int, anyio.CancelScope]) -> None:
        with tails[ask.tail]:
            async with aclosing(self._tail(ask)) as batches:
                async for batch in batches:
                    for part in cut(batch):
                        await channel.send(messages.encode(part))
        del tails[ask.tail]
        await channel.send(messages.encode(TailEnd(tail=ask.tail)))

    async def _send_figures(self, channel: Channel, wanted: AskFigures) -> None:
        found = await self._measure(wanted.app, wanted.environment) if self._measure is not None else ()
        for start in range(0, max(1, len(found)), FIGURES_PER_FRAME):
            part, more = found[start : start + FIGURES_PER_FRAME], start + FIGURES_PER_FRAME < len(found)
            await channel.send(messages.encode(FiguresTold(ask=wanted.ask, instances=part, more=more)))


def cut(batch: TailLines) -> Iterator[TailLines]:
    """The same lines in parts that fit a frame each; a line that fits none counts as dropped."""
    if len(messages.encode(batch)) <= messages.FRAME_BYTES_MAX:
        yield batch
    elif len(batch.lines) == 1:
        yield replace(batch, lines=(), dropped=batch.dropped + 1)
    else:
        half = len(batch.lines) // 2
        yield from cut(replace(batch, lines=batch.lines[:half]))
        yield from cut(replace(batch, lines=batch.lines[half:], dropped=0))


def encode_report(report: HostReport) -> bytes:
    """The frame of `report`; what is said for persons is left out of one that would be too large."""
    frame = messages.encode(Report(report=report))
    if len(frame) <= messages.FRAME_BYTES_MAX:
        return frame
    bare = tuple(
        replace(
            app,
            admin=app.admin and replace(app.admin, output=""),
            instances=tuple(replace(instance, detail="") for instance in app.instances),
        )
        for app in report.apps
    )
    return messages.encode(Report(report=replace(report, apps=bare)))
