"""New counts at a coordinator process: who gets them, when, and what is refused."""

import signal
from pathlib import Path

import anyio
import pytest

from agent.client.answers import ScaleShown
from agent.client.coordinator import Coordinator
from agent.errors import NotFoundError, RefusedError, UsageError
from agent.model.ids import ProcessName
from tests.integration.coordinator.fleet import APP, DEADLINE_S, LOCAL, FakeAgent, finished, order, release, swap
from tests.integration.coordinator.test_rollouts import QUICK, deployed

pytestmark = pytest.mark.anyio

WEB = ProcessName("web")


async def at_rest(client: Coordinator) -> ScaleShown:
    shown = await client.counts(APP, LOCAL)
    with anyio.fail_after(DEADLINE_S):
        async for seen in client.watch_counts(APP, LOCAL):
            shown = seen or shown
    return shown


def count(agent: FakeAgent) -> int | None:
    return agent.held[APP, LOCAL].counts.get(WEB)


async def test_every_host_gets_the_counts_and_nothing_else(tmp_path: Path) -> None:
    """The same release by the same order, with other counts; the settings say so, and asking again does nothing."""
    async with deployed(tmp_path, "h1", "h2") as (_, client, agents):
        await swap(client, "v1")
        before = agents[0].held[APP, LOCAL]
        assert (await client.scale(APP, LOCAL, {WEB: 3})).changed
        assert (await at_rest(client)).state == "done"
        assert [count(agent) for agent in agents] == [3, 3]
        after = agents[0].held[APP, LOCAL]
        assert (after.release, after.order, after.prepare) == (before.release, before.order, before.prepare)
        assert (await client.settings(APP, LOCAL)).file == f"{QUICK}\n[scale]\nweb = 3\n"
        assert not (await client.scale(APP, LOCAL, {WEB: 3})).changed
        assert agents[0].held[APP, LOCAL].generation == after.generation
        await swap(client, "v2")
        assert [count(agent) for agent in agents] == [3, 3]
        await swap(client, "v1", "rollback")
        assert [count(agent) for agent in agents] == [3, 3]


async def test_a_host_that_was_away_follows_when_it_is_back(tmp_path: Path) -> None:
    """The coordinator is killed right after it has answered: the host that comes back gets what was asked for."""
    async with deployed(tmp_path, "h1") as (fleet, client, (first,)):
        async with anyio.create_task_group() as tasks:
            away = FakeAgent(fleet, "h2")
            tasks.start_soon(away.dialer.run)
            await away.until(lambda agent: agent.dialer.connected)
            await swap(client, "v1")
            assert count(away) is None
            tasks.cancel_scope.cancel()
        shown = await client.scale(APP, LOCAL, {WEB: 2})
        assert (shown.state, shown.stragglers) == ("scaling", ("h2",))
        await fleet.kill(signal.SIGKILL)
        await fleet.start()
        async with anyio.create_task_group() as tasks:
            for agent in (FakeAgent(fleet, "h2", tls=fleet.agent_tls("h2")), FakeAgent(fleet, "h3")):
                tasks.start_soon(agent.dialer.run)
                await agent.until(lambda agent: agent.runs == "v1")
                assert count(agent) == 2, "one that was away, and one that has joined since"
            await first.until(lambda agent: agent.dialer.connected and count(agent) == 2)
            assert (await at_rest(client)).state == "done"
            tasks.cancel_scope.cancel()


async def test_what_cannot_be_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """A type that there is not, a count out of bounds, a rollout that is under way."""
    async with deployed(tmp_path, "h1") as (_, client, (agent,)):
        await client.create_release(APP, LOCAL, release("v1"))
        with pytest.raises(NotFoundError, match="there is no process type nope of shop; there are: web"):
            await client.scale(APP, LOCAL, {ProcessName("nope"): 1})
        for counts in ({}, {WEB: 501}, {WEB: -1}):
            with pytest.raises(UsageError):
                await client.scale(APP, LOCAL, counts)
        assert (await client.scale(APP, LOCAL, {WEB: 2})).release is None, "the first release will have it"
        agent.answers = False
        asked = await order(client, "v1")
        rollout = await client.start_rollout(APP, LOCAL, asked.envelope, None)
        await agent.until(lambda agent: (APP, LOCAL) in agent.held)
        with pytest.raises(RefusedError, match=f"rollout {rollout.id} is preflight"):
            await client.scale(APP, LOCAL, {WEB: 4})
        assert (await client.settings(APP, LOCAL)).file.endswith("web = 2\n")
        assert (await client.counts(APP, LOCAL)).rollout == rollout.id
        agent.answers = True
        agent.report()
        await agent.until(lambda agent: count(agent) == 2)
        assert (await finished(client, rollout)).state == "done"
        assert [(host.host, host.wanted) for host in (await at_rest(client)).hosts] == [("h1", {WEB: 2})]


async def test_of_two_that_scale_at_once_both_hold(tmp_path: Path) -> None:
    """Counts that are set at the same time are one after the other: the last holds, on hosts and in the settings."""
    async with deployed(tmp_path, "h1", "h2") as (_, client, agents):
        await swap(client, "v1")
        async with anyio.create_task_group() as tasks:
            for number in range(1, 9):
                tasks.start_soon(client.scale, APP, LOCAL, {WEB: number})
        shown = await at_rest(client)
        assert [count(agent) for agent in agents] == [shown.counts[WEB]] * 2
        assert f"web = {shown.counts[WEB]}\n" in (await client.settings(APP, LOCAL)).file
