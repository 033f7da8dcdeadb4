"""Probes over HTTP and TCP: what counts as an answer, what is asked, and how long anybody waits."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import pytest
from aiohttp import web

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

    async def check(self, check: HttpCheck | TcpCheck, timeout_ms: int = 2_000, *, listens: bool = True) -> Finding:
        process = ProcessType(name=ProcessName("web"), command="unused")
        launchable = Launchable(
            key=InstanceKey(AppName("shop"), EnvironmentName("test"), process.name, 1),
            release=V1, type=process, cwd="/", config={},
            target=Target("127.0.0.1", self.port, "127.77.0.2") if listens else None,
        )  # fmt: skip
        prober = Prober(launchable)
        async with prober:
            found = await prober.check(Probe(check=check, timeout_ms=timeout_ms))
        if found is None:
            raise NotAskedError
        return found

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
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
    site = Site()
    server = web.Application()
    server.router.add_get("/{path:.*}", site.answer)
    runner = web.AppRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
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
