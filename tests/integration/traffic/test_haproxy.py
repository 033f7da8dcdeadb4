"""The HAProxy driver and a real HAProxy: nobody notices a drain, and what a reload or a crash forgets comes back."""

import os
import signal
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from agent.errors import UsageError
from agent.model.balancer import Seen, Wish
from agent.model.ids import HostName
from agent.traffic import runtime_api
from agent.traffic.haproxy import Haproxy
from tests.integration.traffic.balanced import Proxy, Server, driven, haproxy, servers, users

pytestmark = pytest.mark.anyio
DRAIN_MS = 1_000


def wish(*started: Server, out: tuple[Server, ...] = ()) -> Wish:
    wanted = (*(one.wanted() for one in started), *(one.wanted(admitted=False) for one in out))
    return Wish(servers=wanted, drain_ms=DRAIN_MS)


def in_file(*started: Server) -> tuple[str, ...]:
    return tuple(f"server {one.name} {one.address} check inter 500ms" for one in started)


async def seen(proxy: Proxy) -> dict[str, Seen]:
    return {server.name: server for server in (await proxy.look()).servers}


async def test_servers_come_and_go_and_nobody_notices(tmp_path: Path) -> None:
    """Under load a server is added, another is drained, killed once that is confirmed, and removed: 0 failed."""
    with haproxy(tmp_path) as proxy, servers("h1:web:1", "h1:web:2") as (old, new):
        async with driven(proxy) as driving:
            driving.driver.wish(wish(old))
            await driving.stands(old.name, "admitted")
            async with users(proxy) as load:
                assert set(await load.more(200)) == {old.name}
                driving.driver.wish(wish(old, new))
                await driving.stands(new.name, "admitted")
                assert set(await load.more(200)) == {old.name, new.name}
                driving.driver.wish(wish(new, out=(old,)))
                await driving.stands(old.name, "drained")
                await to_thread.run_sync(old.kill)
                assert set(await load.more(300)) == {new.name}
                driving.driver.wish(wish(new))
                with anyio.fail_after(10):
                    while old.name in await seen(proxy):
                        await load.more(10)
                assert load.failed == []


async def test_a_drain_waits_for_slow_answers(tmp_path: Path) -> None:
    """Who was being served when the drain began gets the answer: the server is only then given up."""
    with haproxy(tmp_path) as proxy, servers("h1:web:1", "h1:web:2") as (old, new):
        async with driven(proxy) as driving:
            driving.driver.wish(wish(old, new))
            await driving.stands(old.name, "admitted")
            await driving.stands(new.name, "admitted")
            async with users(proxy, "/slow") as load:
                await load.more(32)
                driving.driver.wish(wish(new, out=(old,)))
                await driving.stands(old.name, "drained")
                await to_thread.run_sync(old.kill)
                await load.more(32)
                assert load.failed == []


async def test_a_reload_undoes_nothing_for_long(tmp_path: Path) -> None:
    """Reloaded under load HAProxy begins with its file; what was drained is drained again, what was added is back."""
    with (
        servers("h1:web:1", "h1:web:2", "h1:web:3") as (out, kept, added),
        haproxy(tmp_path, *in_file(out, kept)) as proxy,
    ):
        async with driven(proxy) as driving:
            driving.driver.wish(wish(kept, added, out=(out,)))
            await driving.stands(out.name, "drained")
            await driving.stands(added.name, "admitted")
            async with users(proxy) as load:
                assert set(await load.more(200)) == {kept.name, added.name}
                await proxy.reload()
                await driving.until(lambda: driving.driver.standing(out.name, admitted=False).state != "drained")
                await driving.stands(out.name, "drained")
                await driving.stands(added.name, "admitted")
                assert set(await load.more(200)) == {kept.name, added.name}
                assert load.failed == []


async def test_a_crash_is_an_unknown_until_it_is_up_and_told_again(tmp_path: Path) -> None:
    """While HAProxy is dead nothing counts as drained; when it is back it hears everything again."""
    with servers("h1:web:1", "h1:web:2") as (out, kept), haproxy(tmp_path, *in_file(out)) as proxy:
        async with driven(proxy) as driving:
            driving.driver.wish(wish(kept, out=(out,)))
            await driving.stands(out.name, "drained")
            await proxy.crash()
            await driving.stands(out.name, "unknown")
            assert "Start HAProxy" in driving.driver.standing(out.name, admitted=False).detail
            proxy.start_again()
            await driving.stands(out.name, "drained")
            await driving.stands(kept.name, "admitted")
            async with users(proxy) as load:
                assert set(await load.more(100)) == {kept.name}
                assert load.failed == []


async def test_one_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped HAProxy is an unknown within the bound, and goes on where it was when it runs again."""
    monkeypatch.setattr(runtime_api, "ANSWER_WITHIN_S", 0.3)
    with haproxy(tmp_path) as proxy, servers("h1:web:1") as (only,):
        async with driven(proxy) as driving:
            driving.driver.wish(wish(only))
            await driving.stands(only.name, "admitted")
            worker = (await proxy.look()).process
            os.kill(worker, signal.SIGSTOP)
            try:
                await driving.stands(only.name, "unknown")
                assert "no answer within" in driving.driver.standing(only.name, admitted=True).detail
            finally:
                os.kill(worker, signal.SIGCONT)
            await driving.stands(only.name, "admitted")


async def test_a_server_that_dies_is_no_longer_admitted(tmp_path: Path) -> None:
    """HAProxy's own checks take out what is dead, agent or no agent; the driver says so."""
    with haproxy(tmp_path) as proxy, servers("h1:web:1", "h1:web:2") as (dies, lives):
        async with driven(proxy, ("check", "inter", "100ms", "fall", "1")) as driving:
            driving.driver.wish(wish(dies, lives))
            await driving.stands(dies.name, "admitted")
            await driving.stands(lives.name, "admitted")
            await to_thread.run_sync(dies.kill)
            await driving.stands(dies.name, "admitting")
            assert "health checks" in driving.driver.standing(dies.name, admitted=True).detail


async def test_a_socket_without_rights_says_what_to_do(tmp_path: Path) -> None:
    """A stats socket that may only read admits nobody, and names the missing word of HAProxy's file."""
    with haproxy(tmp_path, level="operator") as proxy, servers("h1:web:1") as (only,):
        async with driven(proxy) as driving:
            driving.driver.wish(wish(only))
            await driving.until(lambda: "level admin" in driving.driver.standing(only.name, admitted=True).detail)
            assert driving.driver.standing(only.name, admitted=True).state == "admitting"


WRONG = {
    "no socket": ((), "shop", ("check",)),
    "a relative path": (("haproxy.sock",), "shop", ("check",)),
    "a name that would have to be looked up": (("balancer:9999",), "shop", ("check",)),
    "a backend of two words": (("/run/haproxy.sock",), "shop;show", ("check",)),
    "an option of two words": (("/run/haproxy.sock",), "shop", ("check inter",)),
}


@pytest.mark.parametrize(("sockets", "backend", "options"), WRONG.values(), ids=WRONG)
def test_what_no_haproxy_could_be_told_is_refused(
    sockets: tuple[str, ...], backend: str, options: tuple[str, ...]
) -> None:
    """Words that could end a command are refused before anything is said."""
    with pytest.raises(UsageError):
        Haproxy(HostName("h1"), sockets, backend, options=options)
