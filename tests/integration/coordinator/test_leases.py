"""Leases over the real link: one of those that ask has it, whoever is killed meanwhile, and a person may move it."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Final

import anyio
import pytest
from anyio.abc import TaskGroup

from agent.errors import NotFoundError, RefusedError
from agent.model.ids import HostName, ProcessName
from agent.model.lease import LeaseAsk, LeaseName
from agent.model.process import AppSpec, ProcessType
from agent.wire.messages import AnswerLeases, AskLeases
from tests.integration.coordinator.fleet import (
    APP,
    DEADLINE_S,
    LOCAL,
    FakeAgent,
    Fleet,
    order,
    release,
    running,
    swap,
    upload,
)

pytestmark = pytest.mark.anyio
CLOCK: Final = ProcessName("clock")
NAME: Final = LeaseName(APP, LOCAL, CLOCK)
H1, H2 = HostName("h1"), HostName("h2")


class Wisher:
    """An agent's side of its leases: asks for the one, or for none, and remembers what was said."""

    def __init__(self, total: int = 0) -> None:
        self.total, self.share = total, 0
        self.changed = anyio.Event()
        self.hurried = True
        self.wants = True
        self.granted: bool | None = None
        self.holder = ""
        self.heard = anyio.Event()
        self._numbers = count(1)

    def linked(self, lease_ms: int | None) -> None:
        assert lease_ms in (None, 30_000)
        self.granted = None

    def ask(self) -> AskLeases:
        self.changed = anyio.Event()
        bound_ms = 1_000 if self.granted else 0
        asks = (LeaseAsk(name=NAME, hold_ms=31_000, bound_ms=bound_ms, total=self.total),) if self.wants else ()
        return AskLeases(number=next(self._numbers), asks=asks)

    async def answered(self, answer: AnswerLeases) -> None:
        self.granted, self.holder = None, ""
        for one in answer.answers:
            self.granted, self.holder, self.share = one.granted, one.holder, one.share
        self.heard.set()
        self.heard = anyio.Event()

    def says(self, *, wants: bool) -> None:
        self.wants = wants
        self.changed.set()

    async def until(self, *, granted: bool | None) -> None:
        with anyio.fail_after(DEADLINE_S):
            while self.granted != granted:
                await self.heard.wait()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The coordinator is a process of its own; the dialer is tried on both loops elsewhere."""
    return "asyncio"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with running(tmp_path) as fleet:
        yield fleet


async def joined(fleet: Fleet, tasks: TaskGroup) -> tuple[Wisher, Wisher]:
    """Two hosts that run a release; the first asks for the lease first."""
    first, second = Wisher(), Wisher()
    second.wants = False
    agents = [FakeAgent(fleet, name, leases=wisher) for name, wisher in ((H1, first), (H2, second))]
    for agent in agents:
        tasks.start_soon(agent.dialer.run)
        await agent.until(lambda agent: agent.dialer.connected)
    async with fleet.client() as client:
        await upload(fleet, client)
        await swap(client, "v1")
    first.says(wants=True)
    await first.until(granted=True)
    second.says(wants=True)
    await second.until(granted=False)
    return first, second


async def test_one_has_it_and_keeps_it_through_a_killed_coordinator(fleet: Fleet) -> None:
    """Who has it goes on at once when the coordinator is back; the other still waits. Given back, it moves at once."""
    async with anyio.create_task_group() as tasks:
        first, second = await joined(fleet, tasks)
        assert second.holder == H1
        await fleet.kill()
        await fleet.start()
        await second.until(granted=None)
        await second.until(granted=False)
        await first.until(granted=True)
        assert second.holder == H1
        first.says(wants=False)
        await first.until(granted=None)
        second.says(wants=True)
        await second.until(granted=True)
        tasks.cancel_scope.cancel()


async def test_a_person_answers_for_a_host_that_is_gone(fleet: Fleet) -> None:
    """The word of an operator moves it at once, if it names the host that has it."""
    async with anyio.create_task_group() as tasks:
        first, second = await joined(fleet, tasks)
        async with fleet.client() as client:
            (shown,) = await client.leases()
            assert (shown.process, shown.host, shown.connected) == (CLOCK, H1, True)
            assert shown.left_ms is not None
            assert 0 < shown.left_ms <= 36_000
            with pytest.raises(RefusedError, match="h1 has that lease, not h2"):
                await client.release_lease(APP, LOCAL, CLOCK, H2)
            with pytest.raises(NotFoundError):
                await client.release_lease(APP, LOCAL, ProcessName("other"), H1)
            first.says(wants=False)
            await client.release_lease(APP, LOCAL, CLOCK, H1)
        second.says(wants=True)
        await second.until(granted=True)
        tasks.cancel_scope.cancel()


async def test_an_agent_that_knows_no_singletons_is_given_none(fleet: Fleet) -> None:
    """A release with a singleton does not go to a host whose agent is older: it would start one beside the other."""
    spec = AppSpec(app=APP, processes=(ProcessType(name=CLOCK, command="x", swap="stop-first", singleton=True),))
    async with anyio.create_task_group() as tasks:
        for agent in (FakeAgent(fleet, H1, leases=Wisher()), FakeAgent(fleet, H2)):
            tasks.start_soon(agent.dialer.run)
            await agent.until(lambda agent: agent.dialer.connected)
        async with fleet.client() as client:
            await upload(fleet, client, spec)
            await client.create_release(APP, LOCAL, release("v1", spec))
            asked = await order(client, "v1", spec=spec)
            with pytest.raises(RefusedError, match="the agent of h2 is of a version that does not know this"):
                await client.start_rollout(APP, LOCAL, asked.envelope, None)
        tasks.cancel_scope.cancel()


async def test_a_total_is_placed_over_the_hosts_and_stays_through_a_killed_coordinator(fleet: Fleet) -> None:
    """Three over two hosts: two here and one there, as before when the coordinator is killed and back."""
    first, second = Wisher(total=3), Wisher(total=3)
    async with anyio.create_task_group() as tasks:
        for name, wisher in ((H1, first), (H2, second)):
            agent = FakeAgent(fleet, name, leases=wisher)
            tasks.start_soon(agent.dialer.run)
            await agent.until(lambda agent: agent.dialer.connected)
        async with fleet.client() as client:
            await upload(fleet, client)
            await swap(client, "v1")
        for wisher in (first, second, first):
            wisher.changed.set()
            await wisher.heard.wait()
        assert (first.share, second.share) == (2, 1)
        await fleet.kill()
        await fleet.start()
        await second.until(granted=None)
        await second.until(granted=True)
        await first.until(granted=True)
        assert (first.share, second.share) == (2, 1)
        tasks.cancel_scope.cancel()
