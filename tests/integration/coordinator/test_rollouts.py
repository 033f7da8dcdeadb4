"""Rollouts over real connections: a coordinator process, and agents that speak through the real dialer."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest

from agent.client.coordinator import Coordinator
from agent.errors import FailedError, UnreachableError
from tests.integration.coordinator.fleet import (
    APP,
    DEADLINE_S,
    LOCAL,
    FakeAgent,
    Fleet,
    finished,
    order,
    release,
    running,
    swap,
    upload,
)

pytestmark = pytest.mark.anyio

QUICK = '[rolling]\nmin_ready = "0s"\ndeadline = "20s"\nbatch = 1\n'


@asynccontextmanager
async def deployed(folder: Path, *hosts: str) -> AsyncIterator[tuple[Fleet, Coordinator, list[FakeAgent]]]:
    """A coordinator with an app, and connected agents."""
    async with running(folder) as fleet, fleet.client() as client, anyio.create_task_group() as tasks:
        agents = [FakeAgent(fleet, host) for host in hosts]
        for agent in agents:
            tasks.start_soon(agent.dialer.run)
            await agent.until(lambda agent: agent.dialer.connected)
        await upload(fleet, client)
        await client.set_settings(APP, LOCAL, QUICK)
        yield fleet, client, agents
        tasks.cancel_scope.cancel()


async def test_a_swap_reaches_every_host_and_becomes_stable(tmp_path: Path) -> None:
    """After a swap all hosts run the release, and the environment can go back to it."""
    async with deployed(tmp_path, "h1", "h2") as (_, client, agents):
        first = await swap(client, "v1")
        assert (first.state, first.previous) == ("done", None)
        second = await swap(client, "v2")
        assert (second.state, second.previous) == ("done", "v1")
        assert [agent.runs for agent in agents] == ["v2", "v2"]
        state = await client.state(APP, LOCAL)
        assert [ref.name for ref in state.stable] == ["v1", "v2"]
        assert (state.sequence, state.rollout) == (2, None)
        keys = {agent.held[APP, LOCAL].environment_key for agent in agents}
        assert len(keys) == 2, "each host gets the environment's key for itself alone"


async def test_a_bad_release_is_brought_back(tmp_path: Path) -> None:
    """A release that does not become ready on a host is undone everywhere, and stable stays what it was."""
    async with deployed(tmp_path, "h1", "h2") as (_, client, agents):
        await swap(client, "v1")
        bad = await swap(client, "v2-bad")
        assert bad.state == "rolled_back"
        assert [agent.runs for agent in agents] == ["v1", "v1"]
        state = await client.state(APP, LOCAL)
        assert (state.runs and state.runs.name, [ref.name for ref in state.stable]) == ("v1", ["v1"])


async def test_going_back_twice_goes_back_twice_as_far(tmp_path: Path) -> None:
    """A rollback takes its target's successors off the stack."""
    async with deployed(tmp_path, "h1") as (_, client, agents):
        for name in ("v1", "v2", "v3"):
            await swap(client, name)
        assert (await swap(client, "v2", "rollback")).state == "done"
        assert [ref.name for ref in (await client.state(APP, LOCAL)).stable] == ["v1", "v2"]
        assert (await swap(client, "v1", "rollback")).state == "done"
        assert agents[0].runs == "v1"
        with pytest.raises(FailedError, match="v1 is the oldest healthy release of shop in local"):
            await swap(client, "v4", "rollback")


async def test_a_rollout_survives_the_kill_of_the_coordinator(tmp_path: Path) -> None:
    """Killed in the middle of a rollout, the coordinator goes on with it when it is started again."""
    async with deployed(tmp_path, "h1", "h2") as (fleet, client, agents):
        await swap(client, "v1")
        for agent in agents:
            agent.answers = False
        await client.create_release(APP, LOCAL, release("v2"))
        asked = await order(client, "v2")
        rollout = await client.start_rollout(APP, LOCAL, asked.envelope, None)
        await agents[0].until(lambda agent: agent.held[APP, LOCAL].generation > 1)
        await fleet.kill(signal.SIGKILL)
        await agents[0].until(lambda agent: not agent.dialer.connected)
        await fleet.start()
        for agent in agents:
            agent.answers = True
            agent.report()
        assert (await finished(client, rollout)).state == "done"
        assert [agent.runs for agent in agents] == ["v2", "v2"]
        assert agents[0].dialer.epoch == 2


async def test_a_rollout_survives_a_kill_around_every_commit(tmp_path: Path) -> None:
    """Killed just before or just after any of its commits, a rollout ends as if nothing had been."""
    async with deployed(tmp_path, "h1", "h2") as (fleet, client, agents):
        await swap(client, "v0")
        for number, dies in enumerate(
            [("before", "1"), ("after", "1"), ("before", "2"), ("after", "2"), ("after", "3")]
        ):
            await fleet.kill(signal.SIGTERM)
            await fleet.start(*dies)
            for agent in agents:
                await agent.until(lambda agent: agent.dialer.connected)
            name = f"v{number + 1}"
            await client.create_release(APP, LOCAL, release(name))
            asked = await order(client, name)
            with suppress(UnreachableError):  # it may die before it can answer
                await client.start_rollout(APP, LOCAL, asked.envelope, None)
            await fleet.died()
            await fleet.start()
            (rollout,) = [shown for shown in await client.rollouts(APP, LOCAL) if shown.release == name]
            assert (await finished(client, rollout)).state == "done"
            assert [agent.runs for agent in agents] == [name, name]
        state = await client.state(APP, LOCAL)
        assert [ref.name for ref in state.stable] == ["v0", "v1", "v2", "v3", "v4", "v5"]


async def test_a_host_that_joins_later_gets_what_runs(tmp_path: Path) -> None:
    """A host that connects for the first time, after a rollout, is given the environment's release."""
    async with deployed(tmp_path, "h1") as (fleet, client, _), anyio.create_task_group() as tasks:
        await swap(client, "v1")
        late = FakeAgent(fleet, "h2")
        tasks.start_soon(late.dialer.run)
        await late.until(lambda agent: agent.runs == "v1")
        tasks.cancel_scope.cancel()


async def test_a_host_that_was_away_converges_when_it_returns(tmp_path: Path) -> None:
    """What a host missed while it was away it gets at its next connection."""
    async with deployed(tmp_path, "h1") as (fleet, client, _), anyio.create_task_group() as tasks:
        away = FakeAgent(fleet, "h2")
        async with anyio.create_task_group() as while_there:
            while_there.start_soon(away.dialer.run)
            await away.until(lambda agent: agent.dialer.connected)
            await swap(client, "v1")
            while_there.cancel_scope.cancel()
        await client.set_settings(APP, LOCAL, f'hosts = ["h1"]\n{QUICK}')
        assert (await swap(client, "v2")).state == "done"
        await client.set_settings(APP, LOCAL, QUICK)
        assert away.runs == "v1"
        tasks.start_soon(away.dialer.run)
        await away.until(lambda agent: agent.runs == "v2")
        tasks.cancel_scope.cancel()


async def test_a_host_that_the_settings_add_gets_what_runs(tmp_path: Path) -> None:
    """A connected host that is taken into the environment is given its release at once."""
    async with deployed(tmp_path, "h1", "h2") as (_, client, agents):
        await client.set_settings(APP, LOCAL, f'hosts = ["h1"]\n{QUICK}')
        assert (await swap(client, "v1")).state == "done"
        assert [agent.runs for agent in agents] == ["v1", None]
        await client.set_settings(APP, LOCAL, QUICK)
        await agents[1].until(lambda agent: agent.runs == "v1")


async def test_a_host_that_is_gone_is_said_to_be_waited_for(tmp_path: Path) -> None:
    """While a rollout waits for a host it says for which, and each host what it was told; status, since when."""
    async with deployed(tmp_path, "h1", "h2") as (fleet, client, _), anyio.create_task_group() as tasks:
        gone = FakeAgent(fleet, "h3")
        async with anyio.create_task_group() as while_there:
            while_there.start_soon(gone.dialer.run)
            await gone.until(lambda agent: agent.dialer.connected)
            assert (await swap(client, "v1")).state == "done"
            while_there.cancel_scope.cancel()
        await client.create_release(APP, LOCAL, release("v2"))
        with anyio.fail_after(DEADLINE_S):
            while (seen := (await client.status()).hosts[2]).connected:
                pass
            rollout = await client.start_rollout(APP, LOCAL, (await order(client, "v2")).envelope, None)
            expected = [("waiting", "v1", ""), ("waiting", "v1", "")]
            while [(host.state, host.release, host.reason) for host in rollout.hosts[:2]] != expected:
                rollout = await client.rollout(rollout.id, rollout.changed_ms)
        since = seen.since[11:19]
        assert (rollout.hosts[2].state, rollout.hosts[2].release) == ("unreachable", "v1")
        assert rollout.hosts[2].reason.startswith(f"away since {since}Z; waited for until ")
        assert rollout.reason == f"waiting for h3: {rollout.hosts[2].reason}"
        tasks.start_soon(gone.dialer.run)
        ended = await finished(client, rollout)
        assert [(host.state, host.release) for host in ended.hosts] == [("done", "v2")] * 3
        tasks.cancel_scope.cancel()


async def test_new_counts_reach_a_host_when_it_moves(tmp_path: Path) -> None:
    """While a release is laid ready and the first host moves, the others keep their counts; all get them back."""
    async with deployed(tmp_path, "h1", "h2") as (fleet, client, agents), anyio.create_task_group() as tasks:
        await client.set_settings(APP, LOCAL, f"{QUICK}[scale]\nweb = 4\n")
        await swap(client, "v1")
        await client.set_settings(APP, LOCAL, f"{QUICK}[scale]\nweb = 3\n")
        assert (await swap(client, "v2-bad")).state == "rolled_back"
        counts = [[(held.release and held.release.name, held.counts) for held in agent.assigned] for agent in agents]
        first, second = counts
        v1, bad = ("v1", {"web": 4}), ("v2-bad", {"web": 3})
        assert first[-3:] == [v1, bad, v1]
        assert set(map(repr, second[1:])) == {repr(v1)}
        late = FakeAgent(fleet, "h3")
        tasks.start_soon(late.dialer.run)
        await late.until(lambda agent: agent.runs == "v1")
        assert late.held[APP, LOCAL].counts == {"web": 4}
        assert (await swap(client, "v3")).state == "done"
        assert [agent.held[APP, LOCAL].counts for agent in (*agents, late)] == [{"web": 3}] * 3
        tasks.cancel_scope.cancel()


async def test_a_first_deploy_that_failed_stays_in_sight(tmp_path: Path) -> None:
    """Status has a row for an app that nothing runs of yet, and a release that failed is listed as such."""
    async with deployed(tmp_path, "h1") as (_, client, _):
        assert (await client.status()).apps == ()
        assert (await swap(client, "v1-bad")).state == "failed"
        (row,) = (await client.status()).apps
        assert (row.release, row.state, row.ready, row.wanted, row.to) == (None, "failed", 0, 0, None)
        await swap(client, "v2")
        assert (await swap(client, "v3-bad")).state == "rolled_back"
        await swap(client, "v4")
        listed = {entry.release: entry.state for entry in await client.releases(APP, LOCAL)}
        assert listed == {"v1-bad": "failed", "v2": "stable", "v3-bad": "failed", "v4": "current"}


async def test_status_counts_what_hosts_were_told_to_run(tmp_path: Path) -> None:
    """Settings that wait for the next rollout change no count; one host's surplus hides no other's lack."""
    async with deployed(tmp_path, "h1", "h2") as (_, client, agents):
        await client.set_settings(APP, LOCAL, f"{QUICK}[scale]\nweb = 4\n")
        await swap(client, "v1")
        await client.set_settings(APP, LOCAL, f"{QUICK}[scale]\nweb = 0\n")
        (row,) = (await client.status()).apps
        assert (row.state, row.ready, row.wanted) == ("degraded", 2, 8), "each of these agents runs one"
        agents[1].answers, given = False, len(agents[1].assigned)
        await client.create_release(APP, LOCAL, release("v2"))
        await client.start_rollout(APP, LOCAL, (await order(client, "v2")).envelope, None)
        await agents[1].until(lambda agent: len(agent.assigned) > given)
        agents[1].report()
        await agents[1].until(lambda agent: agent.runs == "v2")
        (row,) = (await client.status()).apps
        assert (row.release, row.state, row.to, row.hosts_done, row.hosts) == ("v1", "running", "v2", 1, 2)
        assert (row.ready, row.wanted) == (0, 0)


async def test_hosts_that_have_not_connected_again_are_unknown_not_down(tmp_path: Path) -> None:
    """After a restart of the coordinator status names the hosts that it knows nothing of, and counts the others."""
    async with running(tmp_path) as fleet, fleet.client() as client, anyio.create_task_group() as tasks:
        agents = [FakeAgent(fleet, host) for host in ("h1", "h2")]
        for agent in agents:
            tasks.start_soon(agent.dialer.run)
            await agent.until(lambda agent: agent.dialer.connected)
        await upload(fleet, client)
        await client.set_settings(APP, LOCAL, QUICK)
        await swap(client, "v1")
        (row,) = (await client.status()).apps
        assert (row.state, row.ready, row.wanted, row.unknown) == ("stable", 2, 2, ())
        tasks.cancel_scope.cancel()
    async with running(tmp_path) as fleet, fleet.client() as client, anyio.create_task_group() as tasks:
        (row,) = (await client.status()).apps
        assert (row.state, row.ready, row.wanted, row.unknown) == ("unknown", 0, 0, ("h1", "h2"))
        back = FakeAgent(fleet, "h1")
        tasks.start_soon(back.dialer.run)
        with anyio.fail_after(DEADLINE_S):
            while (row := (await client.status()).apps[0]).unknown != ("h2",):
                await anyio.lowlevel.checkpoint()
        assert (row.state, row.ready, row.wanted) == ("unknown", 1, 1)
        tasks.cancel_scope.cancel()


async def test_an_operator_may_abort(tmp_path: Path) -> None:
    """After an abort the former release runs everywhere."""
    async with deployed(tmp_path, "h1", "h2") as (_, client, agents):
        await swap(client, "v1")
        await client.create_release(APP, LOCAL, release("v2"))
        asked = await order(client, "v2")
        agents[1].answers = False
        rollout = await client.start_rollout(APP, LOCAL, asked.envelope, None)
        await agents[1].until(lambda agent: agent.held[APP, LOCAL].generation > 2)
        agents[1].answers = True
        aborted = await client.tell_rollout(rollout.id, "abort")
        assert aborted.state in ("rolling_back", "aborted")
        agents[1].report()
        assert (await finished(client, rollout)).state == "aborted"
        assert [agent.runs for agent in agents] == ["v1", "v1"]


async def test_the_coordinator_ends_cleanly_when_asked(tmp_path: Path) -> None:
    """SIGTERM ends a coordinator with connected agents and a live rollout, with exit code 0."""
    async with deployed(tmp_path, "h1") as (fleet, client, agents):
        agents[0].answers = False
        await client.create_release(APP, LOCAL, release("v1"))
        asked = await order(client, "v1")
        await client.start_rollout(APP, LOCAL, asked.envelope, None)
        await agents[0].until(lambda agent: bool(agent.assigned))
        assert await fleet.kill(signal.SIGTERM) == 0, fleet.log
