"""Both ends of the link on loopback with real TLS: a server that only has the link, and dialers."""

import random
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
from aiohttp import web

from agent.coordinator import ca
from agent.link.accept import Links
from agent.link.dial import Dialer
from agent.link.peers import peer_of
from agent.link.tls import client_context, server_context
from agent.model.assignment import AppReport, Assignment, HostReport
from agent.model.figures import InstanceFigures
from agent.model.ids import AppName, EnvironmentName, HostName
from agent.model.lease import LeaseAnswer, LeaseAsk
from agent.model.roles import TlsFiles
from agent.wire.messages import PROTOCOL, Hello, TailLines, TailLogs

DEADLINE_S = 15.0


def identity(folder: Path, name: str, kind: ca.Kind) -> TlsFiles:
    """A certificate by the authority of `folder`, which is made with the first one."""
    ca.make_ca(folder / "ca")
    certificate, key = ca.issue(folder / "ca", name, ("127.0.0.1",), kind)
    files = TlsFiles(
        ca=str(folder / "ca" / "ca.pem"), certificate=str(folder / f"{name}.pem"), key=str(folder / f"{name}.key")
    )
    Path(files.certificate).write_bytes(certificate)
    Path(files.key).write_bytes(key)
    return files


def hello(host: str) -> Hello:
    return Hello(protocol=PROTOCOL, host=HostName(host), boot_id="boot", version="0", age_recipient="age1")


def assignment(generation: int, app: str = "shop", order: str = "") -> Assignment:
    return Assignment(
        app=AppName(app),
        environment=EnvironmentName("local"),
        epoch=1,
        generation=generation,
        release=None,
        order=order,
        min_ready_ms=0,
        deadline_ms=0,
    )


def app_report(generation: int) -> AppReport:
    return AppReport(
        app=AppName("shop"), environment=EnvironmentName("local"), generation=generation, release=None, state="done"
    )


class Seen:
    """What happened, and waiting for it."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self._changed = anyio.Event()

    def add(self, event: object) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, met: Callable[[list[object]], bool]) -> None:
        try:
            with anyio.fail_after(DEADLINE_S):
                while not met(self.events):
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"did not happen; seen: {self.events}") from None


class Server:
    """The coordinator's end, and a listener that notes what it is told."""

    def __init__(self, folder: Path, epoch: int = 1) -> None:
        self.folder, self.seen = folder, Seen()
        self.links = Links(epoch=epoch, listener=self)
        self.lives_s = 3600.0
        self._context = server_context(identity(folder, "coordinator", "coordinator"))

    async def connected(self, hello: Hello) -> None:
        self.seen.add(("connected", hello.host))

    def reported(self, report: HostReport) -> None:
        self.seen.add(report)

    async def lease_asks(self, host: HostName, asks: tuple[LeaseAsk, ...]) -> tuple[LeaseAnswer, ...]:
        return tuple(LeaseAnswer(name=ask.name, granted=True) for ask in asks)

    def disconnected(self, host: HostName) -> None:
        self.seen.add(("disconnected", host))

    @property
    def reports(self) -> list[HostReport]:
        return [event for event in self.seen.events if isinstance(event, HostReport)]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        if peer is None:
            return web.Response(status=401)
        return await self.links.handle(request, peer, lives_s=self.lives_s)

    @asynccontextmanager
    async def serving(self, listening: socket.socket | None = None) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/agent/v1/link", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.2, handler_cancellation=True)
        await runner.setup()
        taken = listening or socket.create_server(("127.0.0.1", 0))
        try:
            await web.SockSite(runner, taken, ssl_context=self._context).start()
            yield f"https://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            self.links.close()
            with anyio.CancelScope(shield=True):
                await runner.cleanup()


class Agent:
    """A dialer, and what it was told."""

    def __init__(
        self,
        url: str,
        tls: ssl.SSLContext,
        host: str = "h1",
        lines: tuple[tuple[str, ...], ...] = (),
        uses: tuple[InstanceFigures, ...] | None = (),
    ) -> None:
        """`uses`: what it tells of its instances; None: it is of a version that cannot be asked."""
        self.seen = Seen()
        self._uses = uses or ()
        self._lines = lines
        self.dialer = Dialer(
            coordinators=[url],
            tls=tls,
            hello=hello(host),
            rng=random.Random(0),  # noqa: S311 - spreads reconnects
            on_assign=self._assigned,
            tail=self._tail,
            measure=None if uses is None else self._measure,
            on_run=None if uses is None else self._called,
            on_connected=lambda connected: self.seen.add("up" if connected else "down"),
        )

    def _called(self, _url: str, run: str) -> None:
        self.seen.add(f"called for {run}")

    async def _measure(self, app: AppName | None, environment: EnvironmentName | None) -> tuple[InstanceFigures, ...]:
        return tuple(one for one in self._uses if app in (None, one.app) and environment in (None, one.environment))

    async def _assigned(self, assignment: Assignment) -> None:
        self.seen.add(assignment)

    @property
    def assignments(self) -> list[Assignment]:
        return [event for event in self.seen.events if isinstance(event, Assignment)]

    async def _tail(self, ask: TailLogs) -> AsyncGenerator[TailLines, None]:
        try:
            for lines in self._lines:
                yield TailLines(tail=ask.tail, lines=lines)
            if ask.follow:
                await anyio.sleep_forever()
        finally:
            self.seen.add("tail ended")


@asynccontextmanager
async def connected(
    folder: Path, lines: tuple[tuple[str, ...], ...] = (), uses: tuple[InstanceFigures, ...] | None = ()
) -> AsyncIterator[tuple[Server, Agent]]:
    """Both ends, the agent being h1."""
    server = Server(folder)
    async with server.serving() as url, anyio.create_task_group() as tasks:
        agent = Agent(url, client_context(identity(folder, "h1", "agent")), lines=lines, uses=uses)
        tasks.start_soon(agent.dialer.run)
        await server.seen.until(lambda events: ("connected", "h1") in events)
        yield server, agent
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def bare(server: Server, url: str, host: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket with the certificate of `host`, over which a test says what it likes."""
    tls = client_context(identity(server.folder, host, "agent"))
    link = f"{url}/agent/v1/link"
    async with aiohttp.ClientSession() as http, http.ws_connect(link, ssl=tls, max_msg_size=1 << 24) as socket:
        yield socket
