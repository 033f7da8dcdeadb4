"""The coordinator's end of the link: one WebSocket per host, named by the host's certificate.

Rules: a host is who its certificate says, and its hello must say the same; its address is the one that it says it has,
else the one that it comes from. The newest connection of a host replaces the older one. Of each app and environment
only the newest assignment waits to be sent. One slow host delays itself alone: it has its own sender, and log lines
that nobody takes in time are dropped and counted.
Not handled here: what reports mean and what is assigned; the `Listener` knows.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Final, Protocol

import anyio
import structlog
from aiohttp import ClientConnectionResetError, web
from msgspec.structs import replace

from agent.errors import RefusedError, RollwayError, UnreachableError, VerificationError
from agent.link.channel import CLOSE_S, HEARTBEAT_S, Channel
from agent.link.peers import Peer
from agent.model.assignment import Assignment, HostReport
from agent.model.figures import InstanceFigures
from agent.model.ids import AppName, EnvironmentName, HostName
from agent.model.lease import LeaseAnswer, LeaseAsk
from agent.model.units import Milliseconds
from agent.wire import messages
from agent.wire.messages import (
    PROTOCOL,
    AnswerLeases,
    AskFigures,
    AskLeases,
    Assign,
    CallRun,
    FiguresTold,
    FromCoordinator,
    Hello,
    Report,
    StopTail,
    TailEnd,
    TailLines,
    TailLogs,
    Welcome,
)
from agent.wire.session import CoordinatorSide, speaks

HELLO_S: Final = 10.0
FIGURES_S: Final = 3.0
"""How long a host may take to tell what its instances use."""
TAIL_BYTES_MAX: Final = 1 << 20
TAILS_PER_HOST_MAX: Final = 32
_AGENTS_PER_S: Final = 650
"""How many agents connect again in a second without being felt by those that are connected."""
_LINE_BYTES: Final = 100
"""What a line costs beside its text."""


class Listener(Protocol):
    """Who is told what the hosts say."""

    async def connected(self, hello: Hello) -> None:
        """Tell that this host can be reached from now on; what it is to run is given in here."""

    def reported(self, report: HostReport) -> None: ...

    async def lease_asks(self, host: HostName, asks: tuple[LeaseAsk, ...]) -> tuple[LeaseAnswer, ...]:
        """What is granted, as far as that can be said. Only the newest connection of a host is asked for."""

    def disconnected(self, host: HostName) -> None: ...


class Tail:
    """Lines of one host on their way to one reader: so many bytes wait, and the rest is counted."""

    def __init__(self) -> None:
        self._waiting: deque[TailLines] = deque()
        self._bytes = 0
        self._dropped = 0
        self._ended = False
        self._changed = anyio.Event()

    def put(self, batch: TailLines) -> None:
        if self._bytes >= TAIL_BYTES_MAX:
            self._dropped += batch.dropped + len(batch.lines)
            return
        self._waiting.append(replace(batch, dropped=batch.dropped + self._dropped))
        self._bytes += _size_bytes(batch)
        self._dropped = 0
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def receive(self) -> TailLines | None:
        """The next batch; None when all were taken and no more will come."""
        while not self._waiting and not self._ended:
            self._changed = anyio.Event()
            await self._changed.wait()
        if self._waiting:
            batch = self._waiting.popleft()
            self._bytes -= _size_bytes(batch)
            return batch
        dropped, self._dropped = self._dropped, 0
        return TailLines(tail=0, lines=(), dropped=dropped) if dropped else None


class Figuring:
    """What one host tells of its instances, part by part."""

    def __init__(self) -> None:
        self.found: list[InstanceFigures] = []
        self.done = anyio.Event()

    def put(self, part: FiguresTold) -> None:
        self.found += part.instances
        if not part.more:
            self.done.set()


class _Connection:
    """One host's connection: what it has said, and what waits to be said to it."""

    def __init__(self, channel: Channel, hello: Hello) -> None:
        self.channel, self.hello = channel, hello
        self.side = CoordinatorSide()
        self.tails: dict[int, Tail] = {}
        self.figures: dict[int, Figuring] = {}
        self._controls: list[FromCoordinator] = []
        self._waiting = anyio.Event()

    def assign(self, assignment: Assignment) -> None:
        self.side = self.side.assign(assignment)
        self._waiting.set()

    def say(self, message: TailLogs | StopTail | AskFigures | AnswerLeases | CallRun) -> None:
        self._controls.append(message)
        self._waiting.set()

    async def send_waiting(self) -> None:
        """Send what waits, assignments first, for as long as the connection lives."""
        while True:
            self.side, assignment = self.side.send_next()
            if assignment is not None:
                await self.channel.send(messages.encode(Assign(assignment=assignment)))
            elif self._controls:
                await self.channel.send(messages.encode(self._controls.pop(0)))
            else:
                self._waiting = anyio.Event()
                await self._waiting.wait()


class Links:
    """Every connected host. `handle` serves one connection; the rest is for the coordinator."""

    def __init__(self, *, epoch: int, listener: Listener, lease_ms: Milliseconds = 0) -> None:
        self._epoch, self._listener, self._lease_ms = epoch, listener, lease_ms
        self._connections: dict[HostName, _Connection] = {}
        self._greeting: dict[Channel, str] = {}
        """Who was let in and has not said hello yet."""
        self._tail_ids = count(1)
        self._ask_ids = count(1)
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

    def is_connected(self, host: HostName) -> bool:
        return host in self._connections

    @property
    def hosts(self) -> tuple[HostName, ...]:
        return tuple(self._connections)

    def assign(self, host: HostName, assignment: Assignment) -> None:
        """Send it if the host is connected, as the newest; one that is away is given it when it comes back."""
        if (connection := self._connections.get(host)) is not None:
            connection.assign(replace(assignment, epoch=self._epoch))

    def drop(self, host: HostName, reason: str) -> None:
        """End the connection of a host that is no more; the listener is told nothing of it."""
        if (connection := self._connections.pop(host, None)) is not None:
            connection.channel.end(reason)
        for channel, name in self._greeting.items():
            if name == host:
                channel.end(reason)

    def close(self) -> None:
        """End every connection: the coordinator stops."""
        for connection in tuple(self._connections.values()):
            connection.channel.end("the coordinator stops")

    @asynccontextmanager
    async def tail(self, host: HostName, ask: TailLogs) -> AsyncIterator[Tail]:
        """The log records of one host, whose number in `ask` is given here; they end when all were sent or it left."""
        connection = self._connections.get(host)
        if connection is None or len(connection.tails) >= TAILS_PER_HOST_MAX:
            reason = "is not connected" if connection is None else "has too many readers of its logs"
            raise UnreachableError(f"cannot read the logs of {host}: it {reason}", "See `rollway status`.")
        number, tail = next(self._tail_ids), Tail()
        connection.tails[number] = tail
        connection.say(replace(ask, tail=number))
        try:
            yield tail
        finally:
            if connection.tails.pop(number, None) is not None:
                connection.say(StopTail(tail=number))

    async def figures(
        self, host: HostName, app: AppName | None, environment: EnvironmentName | None
    ) -> tuple[InstanceFigures, ...]:
        """What the instances of one host use; nothing of one that does not answer soon, or knows not how."""
        connection = self._connections.get(host)
        if connection is None or not connection.hello.tells_figures:
            return ()
        number, figuring = next(self._ask_ids), Figuring()
        connection.figures[number] = figuring
        connection.say(AskFigures(ask=number, app=app, environment=environment))
        try:
            with anyio.move_on_after(FIGURES_S):
                await figuring.done.wait()
        finally:
            connection.figures.pop(number, None)
        return tuple(figuring.found)

    def runs_commands(self, host: HostName) -> bool:
        """Whether its agent knows `CallRun`; nobody knows it of a host that is away."""
        connection = self._connections.get(host)
        return connection is not None and connection.hello.runs

    def call(self, host: HostName, run: str) -> None:
        """Have the host dial for a command. Raises UnreachableError, RefusedError."""
        connection = self._connections.get(host)
        if connection is None:
            raise UnreachableError(f"cannot run it on {host}: it is not connected", "See `rollway status`.")
        if not connection.hello.runs:
            version = connection.hello.version
            raise RefusedError(
                f"cannot run it on {host}: its agent, version {version}, does not know how", "Upgrade that agent."
            )
        connection.say(CallRun(run=run))

    async def handle(self, request: web.Request, peer: Peer, *, lives_s: float) -> web.WebSocketResponse:
        """Serve the connection of the agent `peer` to its end, at most until its certificate has expired."""
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, compress=False, max_msg_size=messages.FRAME_BYTES_MAX, timeout=CLOSE_S
        )
        try:
            await socket.prepare(request)
        except ClientConnectionResetError:
            return socket  # It gave up between the handshake and here; a storm has hundreds of these.
        channel = Channel(socket)
        channel.scope.deadline = anyio.current_time() + lives_s
        try:
            with channel.scope:
                self._greeting[channel] = peer.name
                try:
                    hello = await _hello(channel, peer)
                finally:
                    del self._greeting[channel]
                if hello is not None:
                    address = hello.address or _seen_at(request)
                    await self._serve(replace(hello, address=address), channel)
        except* RollwayError as errors:
            channel.lost(str(errors.exceptions[0]))
            self._log.warning("link refused", host=peer.name, reason=channel.reason)
        await channel.close()
        if request.transport is not None:
            request.transport.abort()
        return socket

    async def _serve(self, hello: Hello, channel: Channel) -> None:
        host, connection = hello.host, _Connection(channel, hello)
        if (older := self._connections.pop(host, None)) is not None:
            older.channel.end("the host has connected again")
        spread_ms = max(1_000, len(self._connections) * 1_000 // _AGENTS_PER_S)
        welcome = Welcome(protocol=PROTOCOL, epoch=self._epoch, spread_ms=spread_ms, lease_ms=self._lease_ms)
        await channel.send(messages.encode(welcome))
        self._connections[host] = connection
        self._log.info("host connected", host=host, version=hello.version)
        try:
            await self._listener.connected(hello)
            async with anyio.create_task_group() as group:
                group.start_soon(connection.send_waiting)
                await self._listen(host, channel, connection)
                group.cancel_scope.cancel()
        finally:
            for tail in connection.tails.values():
                tail.end()
            connection.tails.clear()
            for figuring in connection.figures.values():
                figuring.done.set()
            if self._connections.get(host) is connection:
                del self._connections[host]
                self._listener.disconnected(host)
            self._log.info("host disconnected", host=host, reason=channel.reason or "cut off here")

    async def _listen(self, host: HostName, channel: Channel, connection: _Connection) -> None:
        while (frame := await channel.receive()) is not None:
            match messages.decode_from_agent(frame):
                case Report(report=report):
                    self._reported(host, connection, report)
                case AskLeases() as ask:
                    await self._answer(host, connection, ask)
                case TailLines(tail=number) as batch:
                    if (tail := connection.tails.get(number)) is not None:
                        tail.put(batch)
                case TailEnd(tail=number):
                    if (tail := connection.tails.pop(number, None)) is not None:
                        tail.end()
                case FiguresTold(ask=number) as part:
                    if (figuring := connection.figures.get(number)) is not None:
                        figuring.put(part)
                case Hello():
                    raise VerificationError(f"{host} said hello twice")

    def _reported(self, host: HostName, connection: _Connection, report: HostReport) -> None:
        if report.host != host:
            raise VerificationError(f"{host} reported for {report.host}")
        if (side := connection.side.reported(report)) is not None:
            connection.side = side
            self._listener.reported(report)

    async def _answer(self, host: HostName, connection: _Connection, ask: AskLeases) -> None:
        """What an older connection of the host asked says nothing of what it has now."""
        if self._connections.get(host) is connection:
            answers = await self._listener.lease_asks(host, ask.asks)
            connection.say(AnswerLeases(number=ask.number, answers=answers))


def _seen_at(request: web.BaseRequest) -> str:
    """Where it comes from; an IPv4 address as such, though it came to a socket of both families."""
    return (request.remote or "").removeprefix("::ffff:")


def _size_bytes(batch: TailLines) -> int:
    return sum(len(line) + _LINE_BYTES for line in batch.lines)


async def _hello(channel: Channel, peer: Peer) -> Hello | None:
    frame: str | None = None
    with anyio.move_on_after(HELLO_S):
        frame = await channel.receive()
        if frame is None:
            return None
    if frame is None:
        raise VerificationError(f"no hello within {HELLO_S:.0f} s")
    hello = messages.decode_from_agent(frame)
    if not isinstance(hello, Hello):
        raise VerificationError("its first word was no hello")
    if hello.host != peer.name:
        raise RefusedError(f"the certificate is of {peer.name}, the hello of {hello.host}")
    if not speaks(hello.protocol):
        raise RefusedError(f"the agent speaks version {hello.protocol} of the link, this coordinator {PROTOCOL}")
    return hello
