"""Commands between a caller and a host through a real coordinator: where they go, and what becomes of both ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from agent.artifacts import sign
from agent.errors import NotFoundError, RefusedError, RollwayError, UnreachableError
from agent.link.runs import Line, dialled
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, Digest, HostName, ReleaseName
from agent.model.release import RunOrder
from agent.wire.runs import STDOUT, WINDOW, Ask, Chunk, Ended, Frame, Refused, Started, Took, encode, from_host
from tests.integration.coordinator.fleet import APP, DEADLINE_S, LOCAL, FakeAgent, Fleet, release, running, swap, upload

pytestmark = pytest.mark.anyio
H1 = HostName("h1")
V1 = ReleaseRef(name=ReleaseName("v1"), digest=Digest(sign.payload_digest(release("v1"))))
STARTED = Started(instance="run.1", pid=7, release=ReleaseName("v1"))


class Hosts:
    """Two hosts, of which h2 is of an older version; h1 does what a test likes with each command."""

    def __init__(self, fleet: Fleet, tasks: TaskGroup) -> None:
        self.fleet = fleet
        self.h1 = FakeAgent(fleet, "h1", on_run=self._called)
        self.h2 = FakeAgent(fleet, "h2")
        self.lines = anyio.create_memory_object_stream[Line](10)
        self.numbers: list[str] = []
        self.deaf = False
        self._tasks = tasks

    def _called(self, url: str, number: str) -> None:
        self.numbers.append(number)
        if not self.deaf:
            self._tasks.start_soon(self._dial, url, number)

    async def _dial(self, url: str, number: str) -> None:
        async with dialled(url, number, self.fleet.agent_tls("h1")) as line:
            await self.lines[0].send(line)
            await anyio.sleep_forever()

    async def called(self) -> Line:
        with anyio.fail_after(DEADLINE_S):
            return await self.lines[1].receive()


@asynccontextmanager
async def hosts(folder: Path) -> AsyncIterator[Hosts]:
    """With v1 on both."""
    async with running(folder) as fleet, fleet.client() as client, anyio.create_task_group() as tasks:
        await upload(fleet, client)
        found = Hosts(fleet, tasks)
        for agent in (found.h2, found.h1):
            tasks.start_soon(agent.dialer.run)
            await agent.until(lambda agent: agent.dialer.connected)
        assert (await swap(client, "v1")).state == "done"
        yield found
        tasks.cancel_scope.cancel()


@pytest.fixture(scope="module")
async def found(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hosts]:
    async with hosts(tmp_path_factory.mktemp("runs")) as hosts_:
        yield hosts_


def order(**fields: object) -> RunOrder:
    given = {"app": APP, "environment": LOCAL, "host": H1, "release": V1.name, "release_digest": V1.digest}
    return RunOrder(**{**given, "words": ("true",), "like": None, **fields})  # type: ignore[arg-type]  # as named


@asynccontextmanager
async def asked(fleet: Fleet, wanted: RunOrder) -> AsyncIterator[Line]:
    """A caller's line, over which a command was asked for."""
    async with fleet.client() as client, client.run(APP, LOCAL) as line:
        await line.send(encode(Ask(order=sign.seal(wanted).decode())))
        yield line


async def hear(line: Line) -> object:
    with anyio.fail_after(DEADLINE_S):
        frame = await line.receive()
    return None if frame is None else from_host(frame)


async def test_a_host_is_found_or_it_is_said_why_not(found: Hosts) -> None:
    """The first that can; of one that is named, what stands against it."""
    async with found.fleet.client() as client:
        target = await client.run_target(APP, LOCAL, None)
        assert (target.host, target.release) == ("h1", V1)
        assert (await client.run_target(APP, LOCAL, HostName("h2"))).host == "h2"
        with pytest.raises(NotFoundError, match="local has no host h9"):
            await client.run_target(APP, LOCAL, HostName("h9"))
        with pytest.raises(NotFoundError, match="no app nope"):
            await client.run_target(AppName("nope"), LOCAL, None)
        held = dict(found.h1.held)
        found.h1.held.clear()
        found.h1.report()
        why = "h1 has not said yet what it runs; h2 has an older agent, which does not know how"
        with anyio.fail_after(DEADLINE_S):
            while "h1" in {row.host for row in await client.ps()}:
                pass
        with pytest.raises(RefusedError, match=why):
            await client.run_target(APP, LOCAL, None)
        found.h1.held.update(held)
        found.h1.report()
        with anyio.fail_after(DEADLINE_S):
            while "h1" not in {row.host for row in await client.ps()}:
                pass


async def test_what_is_said_goes_to_and_fro_as_it_is(found: Hosts) -> None:
    """The host hears what was asked; words and bytes pass in order; `ps` shows it meanwhile; then both are done."""
    async with asked(found.fleet, order()) as caller:
        host = await found.called()
        assert await host.receive() == encode(Ask(order=sign.seal(order()).decode()))
        said: list[Frame] = [encode(word) for word in (STARTED, Chunk(STDOUT, b"\0\xff"), Chunk(STDOUT, b""))]
        for frame in said:
            await host.send(frame)
        assert [await caller.receive() for _ in said] == said
        async with found.fleet.client() as client:
            (shown,) = [row for row in await client.ps() if row.process == "run"]
            assert (shown.host, shown.instance, shown.pid, shown.detail) == ("h1", "run.1", 7, "true, run by bootstrap")
        await caller.send(encode(Took(stream=STDOUT)))
        assert await host.receive() == encode(Took(stream=STDOUT))
        await host.send(encode(Ended(code=3)))
        await host.close()
        assert [await hear(caller), await hear(caller)] == [Ended(code=3), None]
        async with found.fleet.client() as client:
            assert [row for row in await client.ps() if row.process == "run"] == []


async def test_the_end_of_either_is_told_to_the_other(found: Hosts) -> None:
    """A host that is lost is named to the caller; one who leaves closes the host's line, though they read nothing."""
    async with asked(found.fleet, order()) as caller:
        host = await found.called()
        await host.send(encode(STARTED))
        await host.close()
        assert await hear(caller) == STARTED
        lost = await hear(caller)
        assert isinstance(lost, Refused)
        assert (lost.code, "the connection to h1 was lost" in lost.error) == (6, True)
    async with asked(found.fleet, order()):
        host = await found.called()
        for _ in range(WINDOW):
            await host.send(encode(Chunk(STDOUT, b"x" * 60_000)))
    with anyio.fail_after(DEADLINE_S):
        while await host.receive() is not None:
            pass


async def test_a_host_that_is_removed_is_cut_off_at_once(tmp_path: Path) -> None:
    """Its commands end with it."""
    async with hosts(tmp_path) as found, asked(found.fleet, order()) as caller, found.fleet.client() as client:
        host = await found.called()
        await client.remove_host(H1)
        with anyio.fail_after(DEADLINE_S):
            while await host.receive() is not None:
                pass
        lost = await hear(caller)
        assert isinstance(lost, Refused)


REFUSED: dict[str, tuple[RunOrder, type[RollwayError], str]] = {
    "for a host that is away": (order(host=HostName("h9")), UnreachableError, "h9: it is not connected"),
    "for one of an older version": (
        order(host=HostName("h2")),
        RefusedError,
        "its agent, version 0, does not know",
    ),
    "for another app": (order(app=AppName("blog")), RollwayError, "the command is for blog in local"),
    "without words": (order(words=()), RollwayError, "wrong words"),
}


async def test_what_cannot_be_run_is_refused_in_words(found: Hosts) -> None:
    """Nobody is called for it, and the caller hears why, with the exit code of it."""
    called = len(found.numbers)
    for wanted, kind, why in REFUSED.values():
        async with asked(found.fleet, wanted) as caller:
            refused = await hear(caller)
        assert isinstance(refused, Refused)
        assert (refused.code, why in refused.error) == (kind.exit_code, True), refused
    assert len(found.numbers) == called


async def test_only_the_host_that_was_called_may_answer_and_once(found: Hosts) -> None:
    """Neither another host, nor a second connection, nor one for a command that there is not gets in between."""
    async with asked(found.fleet, order()) as caller:
        host = await found.called()
        for name, number in (("h2", found.numbers[-1]), ("h1", found.numbers[-1]), ("h1", "another")):
            async with dialled(found.fleet.url, number, found.fleet.agent_tls(name)) as line:
                with anyio.fail_after(DEADLINE_S):
                    assert await line.receive() is None
        await host.send(encode(Ended(code=0)))
        assert await hear(caller) == Ended(code=0)


async def test_who_sends_more_than_was_asked_for_is_cut_off(found: Hosts) -> None:
    """A host that heeds no window fills nobody's memory: its command is over, and the caller hears why."""
    async with asked(found.fleet, order()) as caller, anyio.create_task_group() as tasks:
        host = await found.called()

        async def flood() -> None:
            while True:
                await host.send(encode(Chunk(STDOUT, b"x" * 60_000)))
                await anyio.lowlevel.checkpoint()

        tasks.start_soon(flood)
        with anyio.fail_after(DEADLINE_S):
            while await host.receive() is not None:
                pass
        tasks.cancel_scope.cancel()
        last: object = None
        with anyio.fail_after(DEADLINE_S):
            while (frame := await caller.receive()) is not None:
                last = from_host(frame)
        assert isinstance(last, Refused)
        assert "more was sent about a command" in last.error


async def test_a_route_that_takes_a_websocket_says_so(found: Hosts) -> None:
    """To who comes without one."""
    async with found.fleet.http() as http:
        async with http.get(f"/v1/apps/{APP}/environments/{LOCAL}/run") as answer:
            assert (answer.status, (await answer.json())["error"]) == (400, "this takes a WebSocket")
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await http.ws_connect(f"/v1/apps/{APP}/environments/nowhere/run")
