"""The link between agent and coordinator over real TLS: what arrives, what is refused, what a slow peer costs."""

import socket
from pathlib import Path

import aiohttp
import anyio
import msgspec
import pytest
from aiohttp import WSMsgType
from msgspec.structs import replace

from agent.errors import RefusedError, UnreachableError
from agent.link.accept import Tail
from agent.link.dial import cut
from agent.link.tls import cli_context, client_context
from agent.model.assignment import AdminReport, AppReport
from agent.model.figures import Figures, InstanceFigures
from agent.model.ids import AppName, EnvironmentName, ProcessName, RolloutId
from agent.wire import messages
from agent.wire.messages import FRAME_BYTES_MAX, TailLines, TailLogs
from tests.integration.link.ends import (
    DEADLINE_S,
    Agent,
    Server,
    app_report,
    assignment,
    bare,
    connected,
    hello,
    identity,
)

pytestmark = pytest.mark.anyio

ASK = TailLogs(tail=0, app=AppName("shop"), environment=EnvironmentName("local"))


async def test_an_assignment_reaches_the_host_with_the_epoch_of_who_sends(tmp_path: Path) -> None:
    """What is assigned arrives, each once, stamped with the coordinator's own epoch."""
    async with connected(tmp_path) as (server, agent):
        for generation in (1, 2, 2):
            server.links.assign(hello("h1").host, assignment(generation))
        server.links.assign(hello("h1").host, assignment(1, "blog"))
        await agent.seen.until(lambda _: any(given.app == "blog" for given in agent.assignments))
        assert [given.generation for given in agent.assignments if given.app == "shop"][-1] == 2
        assert len({(given.app, given.generation) for given in agent.assignments}) == len(agent.assignments)
        assert {given.epoch for given in agent.assignments} == {1}


async def test_a_burst_of_reports_arrives_as_its_newest(tmp_path: Path) -> None:
    """A host that changes a hundred times in a moment sends the newest truth, not a hundred old ones."""
    async with connected(tmp_path) as (server, agent):
        truth: list[AppReport] = []
        for generation in range(100):
            truth[:] = [app_report(generation)]
            agent.dialer.report(lambda: tuple(truth))
        await server.seen.until(lambda _: bool(server.reports) and server.reports[-1].apps[0].generation == 99)
        assert len(server.reports) == 1


def uses(count: int, app: str = "shop") -> tuple[InstanceFigures, ...]:
    where = {"app": AppName(app), "environment": EnvironmentName("local"), "process": ProcessName("web")}
    figures = Figures(cpu_ms=1_500, cpu_percent=2.5, memory_bytes=1 << 25, memory_kind="pss", threads=4, open_files=9)
    return tuple(msgspec.convert({**where, "slot": n, "figures": figures}, InstanceFigures) for n in range(count))


async def test_what_instances_use_is_told_to_who_asks(tmp_path: Path) -> None:
    """However many there are, and of one app only where one is meant."""
    told = (*uses(1_200), *uses(2, "blog"))
    async with connected(tmp_path, uses=told) as (server, _):
        assert await server.links.figures(hello("h1").host, None, None) == told
        assert await server.links.figures(hello("h1").host, AppName("blog"), None) == uses(2, "blog")
        assert not server.reports, "a report carries none of it"


async def test_an_agent_of_an_older_version_is_not_asked_what_instances_use(tmp_path: Path) -> None:
    """It would take the question for the word of a stranger and hang up; nor is one that is not there."""
    async with connected(tmp_path, uses=None) as (server, agent):
        assert await server.links.figures(hello("h1").host, None, None) == ()
        assert await server.links.figures(hello("h9").host, None, None) == ()
        agent.dialer.report(lambda: (app_report(1),))
        await server.seen.until(lambda _: bool(server.reports))
        assert agent.seen.events == ["up"]


async def test_only_an_agent_that_knows_how_is_called_for_a_command(tmp_path: Path) -> None:
    """It is called by the coordinator that it is connected to; an older one, and one that is away, is said to be so."""
    async with connected(tmp_path) as (server, agent):
        assert server.links.runs_commands(hello("h1").host)
        server.links.call(hello("h1").host, "number-7")
        await agent.seen.until(lambda events: "called for number-7" in events)
        with pytest.raises(UnreachableError, match="cannot run it on h9: it is not connected"):
            server.links.call(hello("h9").host, "number-8")
    async with connected(tmp_path, uses=None) as (server, _):
        assert not server.links.runs_commands(hello("h1").host)
        with pytest.raises(RefusedError, match="cannot run it on h1: its agent, version 0, does not know how"):
            server.links.call(hello("h1").host, "number-9")


async def test_a_lost_link_comes_back_with_the_truth(tmp_path: Path) -> None:
    """When the coordinator is back, on the same address, the agent is too, and says again what is."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=16)
    server = Server(tmp_path)
    async with anyio.create_task_group() as tasks:
        async with server.serving(listening.dup()) as url:
            agent = Agent(url, client_context(identity(tmp_path, "h1", "agent")))
            tasks.start_soon(agent.dialer.run)
            agent.dialer.report(lambda: (app_report(7),))
            await server.seen.until(lambda _: bool(server.reports))
        await agent.seen.until(lambda events: events == ["up", "down"])
        again = Server(tmp_path, epoch=2)
        async with again.serving(listening):
            await again.seen.until(lambda _: bool(again.reports))
            assert again.reports[0].apps == (app_report(7),)
            assert agent.dialer.epoch == 2
        tasks.cancel_scope.cancel()


async def test_an_older_coordinator_is_not_listened_to(tmp_path: Path) -> None:
    """An agent that has heard epoch 5 takes nothing from a coordinator of epoch 4."""
    older, newer = Server(tmp_path, epoch=4), Server(tmp_path, epoch=5)
    async with older.serving() as old_url, newer.serving() as new_url, anyio.create_task_group() as tasks:
        agent = Agent(new_url, client_context(identity(tmp_path, "h1", "agent")))
        agent.dialer._coordinators = (new_url, old_url)
        tasks.start_soon(agent.dialer.run)
        await agent.seen.until(lambda events: events == ["up"])
        newer.links.close()
        await older.seen.until(lambda events: ("disconnected", "h1") in events)
        await newer.seen.until(lambda events: events.count(("connected", "h1")) == 2)
        await agent.seen.until(lambda events: events == ["up", "down", "up"])
        tasks.cancel_scope.cancel()


async def test_the_newest_connection_of_a_host_is_the_one(tmp_path: Path) -> None:
    """A host that connects again before its old connection is known dead replaces it, and is never away for it."""
    async with connected(tmp_path) as (server, agent), bare(server, agent.dialer._coordinators[0], "h1") as socket:
        await socket.send_str(messages.encode(hello("h1")).decode())
        await agent.seen.until(lambda events: "down" in events)
        assert ("disconnected", "h1") not in server.seen.events
        assert server.links.is_connected(hello("h1").host)


HOSTILE = {
    "another host's hello": (messages.encode(hello("h1")).decode(), "certificate is of h9"),
    "no JSON": ("{", "cannot read a frame"),
    "no message of ours": ('{"type":"launch"}', "cannot read a frame"),
    "a number a thousand levels deep": ("[" * 2_000 + "]" * 2_000, "cannot read a frame"),
    "a report before the hello": (
        '{"type":"report","report":{"host":"h9","boot_id":"b","sequence":0}}', "its first word was no hello",
    ),
    "a hello of a version to come": (
        messages.encode(hello("h9")).decode().replace('"protocol":1', '"protocol":9'), "version 9",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("frame", "reason"), HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_first_frame_is_refused(tmp_path: Path, frame: str, reason: str) -> None:
    """Whoever does not speak as the host of their certificate is closed out with the reason, and is no host."""
    server = Server(tmp_path)
    async with server.serving() as url, bare(server, url, "h9") as socket:
        await socket.send_str(frame)
        with anyio.fail_after(DEADLINE_S):
            closed = await socket.receive()
        assert closed.type is WSMsgType.CLOSE
        assert reason in str(closed.extra)
        assert server.seen.events == []


async def test_a_frame_over_the_bound_ends_the_connection(tmp_path: Path) -> None:
    """A frame larger than the bound is not read into memory: the connection is closed with code 1009."""
    server = Server(tmp_path)
    async with server.serving() as url, bare(server, url, "h9") as socket:
        await socket.send_str(messages.encode(hello("h9")).decode())
        await server.seen.until(lambda events: ("connected", "h9") in events)
        await socket.send_str(" " * (FRAME_BYTES_MAX + 1))
        await server.seen.until(lambda events: ("disconnected", "h9") in events)
        with anyio.fail_after(DEADLINE_S):
            while (frame := await socket.receive()).type is WSMsgType.TEXT:
                pass
        assert frame.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_host_reports_for_itself_alone(tmp_path: Path) -> None:
    """A report in the name of another host ends the connection, and is not taken."""
    server = Server(tmp_path)
    async with server.serving() as url, bare(server, url, "h9") as socket:
        await socket.send_str(messages.encode(hello("h9")).decode())
        await socket.send_str('{"type":"report","report":{"host":"h1","boot_id":"b","sequence":0}}')
        await server.seen.until(lambda events: ("disconnected", "h9") in events)
        assert server.reports == []


async def test_a_certificate_ends_with_its_time(tmp_path: Path) -> None:
    """A connection does not outlive the certificate it was made with."""
    server = Server(tmp_path)
    server.lives_s = 0.3
    async with server.serving() as url, anyio.create_task_group() as tasks:
        agent = Agent(url, client_context(identity(tmp_path, "h1", "agent")))
        tasks.start_soon(agent.dialer.run)
        await server.seen.until(lambda events: events[:2] == [("connected", "h1"), ("disconnected", "h1")])
        tasks.cancel_scope.cancel()


async def test_only_our_authoritys_certificates_are_taken(tmp_path: Path) -> None:
    """A certificate of another authority opens nothing, and none at all gives 401."""
    server = Server(tmp_path / "ours")
    async with server.serving() as url, aiohttp.ClientSession() as http:
        foreign = identity(tmp_path / "theirs", "h1", "agent")
        tls = client_context(foreign)
        tls.load_verify_locations(tmp_path / "ours" / "ca" / "ca.pem")
        with pytest.raises(aiohttp.ClientError):
            await http.ws_connect(f"{url}/agent/v1/link", ssl=tls)
        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            await http.ws_connect(f"{url}/agent/v1/link", ssl=cli_context(str(tmp_path / "ours" / "ca" / "ca.pem")))
        assert raised.value.status == 401


async def everything(tail: Tail) -> list[TailLines]:
    batches: list[TailLines] = []
    while (batch := await tail.receive()) is not None:
        batches.append(batch)
    return batches


async def test_logs_come_whole_and_end(tmp_path: Path) -> None:
    """A tail without follow gives every record, in order, and ends."""
    lines = tuple((f'{{"n":{n}}}', "x" * 60_000) for n in range(20))
    async with connected(tmp_path, lines) as (server, _), server.links.tail(hello("h1").host, ASK) as batches:
        with anyio.fail_after(DEADLINE_S):
            found = [line for batch in await everything(batches) for line in batch.lines]
        assert found == [line for batch in lines for line in batch]


async def test_a_reader_that_leaves_ends_the_tail_on_the_host(tmp_path: Path) -> None:
    """When nobody reads any more, the host stops following."""
    follow = TailLogs(tail=0, app=ASK.app, environment=ASK.environment, follow=True)
    async with connected(tmp_path, (("one",),)) as (server, agent):
        async with server.links.tail(hello("h1").host, follow) as batches:
            with anyio.fail_after(DEADLINE_S):
                batch = await batches.receive()
            assert batch is not None
            assert batch.lines == ("one",)
        await agent.seen.until(lambda events: "tail ended" in events)


async def test_a_slow_reader_of_logs_loses_counted_records(tmp_path: Path) -> None:
    """A reader that does not read costs a bounded buffer; what it misses is counted, and reports still come."""
    lines = tuple((f"{n}" + " " * 10_000,) for n in range(500))
    async with connected(tmp_path, lines) as (server, agent), server.links.tail(hello("h1").host, ASK) as batches:
        await agent.seen.until(lambda events: "tail ended" in events)
        agent.dialer.report(lambda: (app_report(1),))
        await server.seen.until(lambda _: bool(server.reports))
        with anyio.fail_after(DEADLINE_S):
            found = await everything(batches)
    kept, dropped = sum(len(batch.lines) for batch in found), sum(batch.dropped for batch in found)
    assert 0 < kept < 500
    assert kept + dropped == 500


async def test_logs_of_a_host_that_is_away_are_refused(tmp_path: Path) -> None:
    """Who asks for the logs of a host that is not connected is told so."""
    server = Server(tmp_path)
    with pytest.raises(UnreachableError, match="h1: it is not connected"):
        async with server.links.tail(hello("h1").host, ASK):
            pass


CUTS = {
    "a batch that fits": (("a", "b"), 3, [("a", "b")]),
    "a batch of two frames' size": (("x" * 200_000, "y" * 200_000), 0, [("x" * 200_000,), ("y" * 200_000,)]),
    "a record that fits no frame": (("a", "\0" * 60_000, "b"), 1, [("a",), (), ("b",)]),
    "nothing but a count": ((), 5, [()]),
}


@pytest.mark.parametrize(("lines", "dropped", "expected"), CUTS.values(), ids=CUTS)
async def test_log_lines_are_cut_into_frames(
    lines: tuple[str, ...], dropped: int, expected: list[tuple[str, ...]]
) -> None:
    """However large a batch is, each frame is within the bound, and every record is sent or counted."""
    parts = list(cut(TailLines(tail=1, lines=lines, dropped=dropped)))
    assert [part.lines for part in parts] == expected
    assert all(len(messages.encode(part)) <= FRAME_BYTES_MAX for part in parts)
    assert sum(len(part.lines) + part.dropped for part in parts) == len(lines) + dropped


async def test_a_huge_report_is_sent_without_its_prose(tmp_path: Path) -> None:
    """A host with more to say than a frame holds still says what counts."""
    admin = AdminReport(rollout=RolloutId("r1"), state="succeeded", output="x" * 10_000)
    apps = tuple(replace(app_report(n), admin=admin) for n in range(40))
    async with connected(tmp_path) as (server, agent):
        agent.dialer.report(lambda: apps)
        await server.seen.until(lambda _: bool(server.reports))
        assert len(server.reports[0].apps) == 40
        assert {report.admin.output for report in server.reports[0].apps if report.admin} == {""}
