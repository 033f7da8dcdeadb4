"""Probes over HTTP and TCP: what counts as an answer, what is asked, and how long anybody waits."""

import datetime as dt
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import anyio
import pytest
import trustme
from aiohttp import web

from agent.linux import procfs
from agent.model.ids import AppName, EnvironmentName, ProcessName
from agent.model.process import HttpCheck, Probe, ProcessType, TcpCheck
from agent.supervisor.finding import Finding
from agent.supervisor.launchable import InstanceKey, Launchable, Target
from agent.supervisor.prober import Prober
from tests.integration.limits import no_more_fds
from tests.integration.supervisor.conftest import V1

pytestmark = pytest.mark.anyio


class NotAskedError(Exception):
    """Nobody could ask."""


@dataclass
class Site:
    """A server that remembers what it was asked."""

    port: int = 0
    asked: list[web.Request] = field(default_factory=list)
    named: list[str | None] = field(default_factory=list)
    """The names that were asked for by TLS."""
    heard: anyio.Event = field(default_factory=anyio.Event)
    """Set once it was asked anything."""

    def prober(self, *, listens: bool = True) -> Prober:
        process = ProcessType(name=ProcessName("web"), command="unused")
        launchable = Launchable(
            key=InstanceKey(AppName("shop"), EnvironmentName("test"), process.name, 1),
            release=V1, type=process, cwd="/", config={},
            target=Target("127.0.0.1", self.port, "127.77.0.2") if listens else None,
        )  # fmt: skip
        return Prober(launchable)

    async def check(self, check: HttpCheck | TcpCheck, timeout_ms: int = 2_000, *, listens: bool = True) -> Finding:
        prober = self.prober(listens=listens)
        async with prober:
            found = await prober.check(Probe(check=check, timeout_ms=timeout_ms))
        if found is None:
            raise NotAskedError
        return found

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.heard.set()
        return await ANSWERS[request.path](request)


async def status(request: web.Request) -> web.StreamResponse:
    return web.Response(status=int(request.query["is"]))


async def redirect(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": request.query["to"]})


async def hang(_request: web.Request) -> web.StreamResponse:
    await anyio.sleep_forever()
    raise AssertionError


async def flood(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(b"x" * 65_536)
    except ConnectionError:
        return response


ANSWERS: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
    "/status": status, "/redirect": redirect, "/hang": hang, "/flood": flood,
}  # fmt: skip


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async for site in served(None):
        yield site


@pytest.fixture
async def secure_site() -> AsyncIterator[Site]:
    """Its certificate is by nobody that anyone trusts, for a name that nobody asks for, and of long ago."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
    trustme.CA().issue_cert("other.example", not_before=old, not_after=old).configure_cert(tls)
    async for site in served(tls):
        yield site


async def served(tls: ssl.SSLContext | None) -> AsyncIterator[Site]:
    site = Site()
    if tls is not None:
        tls.sni_callback = lambda _connection, name, _context: site.named.append(name)
    server = web.Application()
    server.router.add_get("/{path:.*}", site.answer)
    runner = web.AppRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    site.port = runner.addresses[0][1]
    yield site
    await runner.cleanup()


CODES: dict[str, tuple[HttpCheck, bool]] = {
    "200": (HttpCheck(path="/status?is=200"), True),
    "204": (HttpCheck(path="/status?is=204"), True),
    "399": (HttpCheck(path="/status?is=399"), True),
    "400": (HttpCheck(path="/status?is=400"), False),
    "503": (HttpCheck(path="/status?is=503"), False),
    "503 where 503 is wanted": (HttpCheck(path="/status?is=503", status_from=500, status_to=599), True),
    "a redirect to a good page of the same host": (HttpCheck(path="/redirect?to=/status?is=200"), True),
    "a redirect to a bad page of the same host": (HttpCheck(path="/redirect?to=/status?is=500"), False),
    "a redirect to another host is not followed": (HttpCheck(path="/redirect?to=http://127.0.0.9/status?is=500"), True),
    "a redirect in a circle": (HttpCheck(path="/redirect?to="), True),
}


@pytest.mark.parametrize(("check", "ok"), CODES.values(), ids=CODES)
async def test_the_status_decides(site: Site, check: HttpCheck, *, ok: bool) -> None:
    """200 to 399 is good news unless the probe says otherwise; redirects are followed on the same host only."""
    assert (await site.check(check)).ok is ok
    assert len(site.asked) <= 11


async def test_a_redirect_that_is_not_followed_is_remarked(site: Site) -> None:
    """A probe that passes although nobody saw the page, as at a redirect to a login, does not do so unseen."""
    away = await site.check(HttpCheck(path="/redirect?to=http://127.0.0.9/login"))
    assert away.remark == "/redirect?to=http://127.0.0.9/login answered 302: a redirect that is not followed"
    assert not (await site.check(HttpCheck(path="/redirect?to=/status?is=200"))).remark
    assert not (await site.check(HttpCheck(path="/redirect?to=http://127.0.0.9/", status_to=299))).remark


async def test_a_circle_of_redirects_ends(site: Site) -> None:
    """An app that redirects for ever is asked eleven times, not for ever."""
    await site.check(HttpCheck(path="/redirect?to=/redirect%3Fto=/redirect"))
    before = len(site.asked)
    await site.check(HttpCheck(path="/redirect?to=?to=%3Fto="))
    assert len(site.asked) - before <= 11


async def test_the_question_says_who_asks(site: Site) -> None:
    """A probe says that it is one, comes from the slot's own address, asks for the address unless told otherwise."""
    await site.check(HttpCheck(path="/status?is=200"))
    await site.check(HttpCheck(path="/status?is=200", host="shop.example", headers=(("User-Agent", "mine"),)))
    plain, named = site.asked
    assert (plain.headers["User-Agent"], plain.headers["Host"]) == ("rollway-probe/1", f"127.0.0.1:{site.port}")
    assert (named.headers["User-Agent"], named.headers["Host"]) == ("mine", "shop.example")
    assert plain.remote == "127.77.0.2"
    assert not plain.keep_alive


async def test_what_is_being_asked_is_not_asked_twice(site: Site) -> None:
    """Readiness and liveness of a new process begin together: the same question has one answer, others their own."""
    same, other = Probe(check=HttpCheck(path="/status?is=200")), Probe(check=HttpCheck(path="/status?is=503"))
    found: list[bool] = []
    prober = site.prober()

    async def ask(probe: Probe) -> None:
        finding = await prober.check(probe)
        found.append(finding is not None and finding.ok)

    async with prober:
        async with anyio.create_task_group() as tasks:
            for probe in (same, other, same, same):
                tasks.start_soon(ask, probe)
        assert sorted(request.path_qs for request in site.asked) == ["/status?is=200", "/status?is=503"]
        assert sorted(found) == [False, True, True, True]
        await ask(same)
        assert len(site.asked) == 3, "what was answered is asked anew"


async def test_who_asks_no_more_leaves_the_question_to_who_waits(site: Site) -> None:
    """The first of two who ask the same is called off: the other still gets an answer."""
    prober, found = site.prober(), list[Finding | None]()
    hangs = Probe(check=HttpCheck(path="/hang"), timeout_ms=300)

    async def ask(scope: anyio.CancelScope) -> None:
        with scope:
            found.append(await prober.check(hangs))

    async with prober, anyio.create_task_group() as tasks:
        first, second = anyio.CancelScope(), anyio.CancelScope()
        tasks.start_soon(ask, first)
        tasks.start_soon(ask, second)
        with anyio.fail_after(5):
            await site.heard.wait()
        first.cancel()
    assert found == [Finding(ok=False, detail="no answer within 300 ms", silent=True)]
    assert len(site.asked) == 2


async def test_over_tls_any_certificate_will_do(secure_site: Site) -> None:
    """A certificate that is untrusted, out of date and for somebody else is no bad news: the status decides."""
    assert (await secure_site.check(HttpCheck(path="/status?is=200", tls=True))).ok
    assert not (await secure_site.check(HttpCheck(path="/status?is=503", tls=True))).ok
    onward = await secure_site.check(HttpCheck(path="/redirect?to=/status?is=200", tls=True))
    assert onward == Finding(ok=True, detail="/redirect?to=/status?is=200 answered 200")
    assert secure_site.asked[0].remote == "127.77.0.2"


async def test_over_tls_the_host_is_asked_for_by_name(secure_site: Site) -> None:
    """`host` is the name in the TLS handshake, without its port, and the Host header as it is written."""
    for host in (None, "shop.example", "shop.example:8443", "10.0.0.1"):
        assert (await secure_site.check(HttpCheck(path="/status?is=200", tls=True, host=host))).ok
    address = f"127.0.0.1:{secure_site.port}"
    assert [one.headers["Host"] for one in secure_site.asked] == [
        address,
        "shop.example",
        "shop.example:8443",
        "10.0.0.1",
    ]
    assert secure_site.named == [None, "shop.example", "shop.example", None]


async def test_who_speaks_no_tls_is_no_answer(site: Site) -> None:
    """An https probe of a plain server fails, whatever that answers; so does an http probe of a TLS server."""
    found = await site.check(HttpCheck(path="/status?is=200", tls=True))
    assert not found.ok
    assert found.detail.startswith("no answer over TLS: ")


async def test_a_proxy_is_never_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the agent's environment does not come between probe and instance."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.9:9")
    assert (await site.check(HttpCheck(path="/status?is=200"))).ok


async def test_a_hanging_app_is_waited_for_no_longer_than_the_timeout(site: Site) -> None:
    """A probe that gets no answer fails when its time is over."""
    finding = await site.check(HttpCheck(path="/hang"), timeout_ms=200)
    assert finding == Finding(ok=False, detail="no answer within 200 ms", silent=True)


async def test_a_flood_is_not_read(site: Site) -> None:
    """An answer without end is judged by its status; its body is not swallowed."""
    assert (await site.check(HttpCheck(path="/flood"))).ok


async def test_tcp_asks_for_a_connection(site: Site) -> None:
    """Where the instance binds its own port, a connection is all that is asked for."""
    assert (await site.check(TcpCheck())).ok
    assert (await site.check(TcpCheck(port=site.port))).ok


async def test_a_worker_is_asked_on_the_port_that_its_probe_names(site: Site) -> None:
    """What has no slot can still be asked over TCP, and is told that nothing else can be asked of it."""
    assert (await site.check(TcpCheck(port=site.port), listens=False)).ok
    assert (await site.check(TcpCheck(), listens=False)).detail == "it listens nowhere"


async def test_nobody_there_is_said_so() -> None:
    """A refused connection is a finding with its reason, not an error."""
    site = Site(port=1)
    for check in (TcpCheck(), HttpCheck(path="/")):
        finding = await site.check(check)
        assert (finding.ok, finding.silent) == (False, True)
        assert "Connection refused" in finding.detail


@pytest.mark.parametrize("check", [TcpCheck(), TcpCheck(port=1), HttpCheck(path="/")])
async def test_who_has_no_descriptor_to_ask_with_finds_nothing(site: Site, check: HttpCheck | TcpCheck) -> None:
    """An app is not found dead, and ended, because its agent or the machine has no descriptor left."""
    with no_more_fds(), pytest.raises(NotAskedError):
        await site.check(check)


Served = Callable[[socket.socket], None]
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: what is left is thrown away, and the other end is told so."""


def says(*parts: bytes, again: bytes = b"", pause_s: float = 0.02) -> Served:
    """Answer these, then the same again and again, until nobody takes it."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        for part in parts:
            connection.sendall(part)
        while again:
            connection.sendall(again)
            select.select([], [], [], pause_s)

    return serve


def silent(connection: socket.socket) -> None:
    """Read to the end and say nothing."""
    while connection.recv(65_536):
        pass


def deaf(connection: socket.socket) -> None:
    """Neither read nor say anything, until the other end is gone."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    poll.poll(5_000)


def rude(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


HEAD = b"HTTP/1.1 200 OK\r\n"
NO_TIME = "no answer within 300 ms"
UNREADABLE = "no answer that can be read"
TARPITS: dict[str, tuple[Served, str]] = {
    "one that takes the question and says nothing": (silent, NO_TIME),
    "one that never reads": (deaf, NO_TIME),
    "one that hangs up at once": (lambda _connection: None, ""),
    "one that throws the connection away": (rude, ""),
    "one that says something else": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), UNREADABLE),
    "one that hangs up in the middle of its headers": (says(HEAD + b"Content-Le"), UNREADABLE),
    "headers byte by byte": (says(HEAD, again=b"X"), NO_TIME),
    "a header without end": (says(HEAD + b"X: ", again=b"x" * 4_096, pause_s=0), UNREADABLE),
    "headers without end": (says(HEAD, again=b"X-More: of the same\r\n" * 50, pause_s=0), ""),
    "a body byte by byte": (says(HEAD + b"Content-Length: 9999\r\n\r\n", again=b"x"), NO_TIME),
    "a body that does not come": (says(HEAD + b"Content-Length: 9999\r\n\r\n", again=b""), UNREADABLE),
    "interim answers without end": (says(again=b"HTTP/1.1 100 Continue\r\n\r\n"), NO_TIME),
}
BEFORE_TLS = list(TARPITS)[:5]
"""What can be done to a handshake of TLS as well."""


@contextmanager
def serving(serve: Served) -> Iterator[int]:
    """A server in a thread of its own, on a port of its own; each connection is served alone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("case", "tls"), [*((case, False) for case in TARPITS), *((case, True) for case in BEFORE_TLS)]
)
async def test_no_server_holds_a_probe_up(case: str, *, tls: bool) -> None:
    """Whatever a server does with the question, the probe has failed in its time, and nothing of it is left open."""
    serve, expected = TARPITS[case]
    with serving(serve) as port:
        before, begun_s = open_sockets(), time.monotonic()
        found = await Site(port=port).check(HttpCheck(path="/", tls=tls), timeout_ms=300)
        assert time.monotonic() - begun_s < 2
        assert not found.ok
        assert tls or found.detail.startswith((expected, NO_TIME))
        with anyio.fail_after(5):
            while open_sockets() > before:
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("check", [HttpCheck(path="/"), HttpCheck(path="/", tls=True), TcpCheck()])
async def test_nobody_answers_the_handshake(check: HttpCheck | TcpCheck) -> None:
    """A server whose queue is full lets the kernel drop the question: the probe waits its time and no longer."""
    with ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(3):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 - the standard library's own order
            waiting.connect_ex(("127.0.0.1", port))
        found = await Site(port=port).check(check, timeout_ms=300)
        assert found == Finding(ok=False, detail="no answer within 300 ms", silent=True)


def open_sockets() -> int:
    return len(list(procfs.sockets(os.getpid())))
