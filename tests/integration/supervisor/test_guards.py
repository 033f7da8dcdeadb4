"""The guard of a singleton with real processes: it ends them when the lease runs out, with and without an agent."""

import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from msgspec.structs import replace

from agent.decisions.swap.lease import LEAD_MS, until
from agent.linux import cgroup, clock, pidfd, procfs
from agent.model.lease import WITHOUT_END
from agent.model.process import ProcessType, StopPolicy
from agent.supervisor.launchable import InstanceKey, Launchable
from tests.integration.supervisor.conftest import QUICK, SHOP, TEST, House, app, lives, worker

pytestmark = pytest.mark.anyio
GRACE_MS = 400
STOP = StopPolicy(linger_ms=0, grace_ms=GRACE_MS)
ENOUGH_MS = GRACE_MS + LEAD_MS + 60_000
SOON_MS = GRACE_MS + LEAD_MS + 700
"""Long enough to start with, and soon over."""


@pytest.fixture(params=["by cgroup", "by its mark"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """A supervisor that does not run yet; with leaves for its instances where the machine has cgroup v2."""
    own = cgroup.detect() if request.param == "by cgroup" else None
    root = cgroup.create(own, f"rollway-test-{uuid.uuid4()}") if own is not None else None
    yield House(tmp_path, cgroup_root=root)
    if root is not None:
        cgroup.remove(root)


@asynccontextmanager
async def an_agent(house: House) -> AsyncIterator[None]:
    """An agent that at its end leaves everything as it is, as a killed one does."""
    house.supervisor = house.another()
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        for record in house.supervisor.left(SHOP, TEST):
            kept = record.instance
            assert kept is not None
            house.supervisor.adopt(
                Launchable(key=record.key, release=kept.release, type=kept.type, cwd=kept.cwd, config={})
            )
        yield
        tasks.cancel_scope.cancel()


def one(command: str, *, keep: bool = False) -> ProcessType:
    process = worker(command, restart=QUICK, stop=STOP)
    return replace(process, singleton=True, swap="stop-first", on_partition="keep" if keep else "stop")


async def leased(house: House, process: ProcessType, hold_ms: int) -> InstanceKey:
    """Launched under a lease of so long."""
    key = InstanceKey(SHOP, TEST, process.name, 1)
    await house.supervisor.guards.renew(key.lease, until(clock.now(), hold_ms), STOP)
    return house.launch(process)


def guards(house: House) -> list[int]:
    """The guards of this test that live."""
    mine = f"{house.folder}/run/leases/"
    return [pid for pid in procfs.processes() if mine in procfs.command(pid) and lives(pid)]


async def gone(pid: int) -> None:
    """Wait for the end of a process that need not be our child."""
    if (started := procfs.start_time(pid)) is not None and (handle := pidfd.open_pidfd(pid, started)) is not None:
        with anyio.fail_after(20):
            await pidfd.exited(handle)
        os.close(handle)


async def ended(house: House) -> None:
    """Give everything back: the guards end when nothing of it lives."""
    async with an_agent(house):
        for view in house.views():
            house.supervisor.stop(InstanceKey(SHOP, TEST, view.process, view.slot), 0)
        await house.until(lambda: all(view.state == "stopped" for view in house.views()))
        for name in house.supervisor.guards.names():
            house.supervisor.guards.give_back(name)
        for pid in guards(house):
            await gone(pid)


async def test_without_an_agent_it_is_ended_when_its_lease_is_over(house: House) -> None:
    """Nobody else is left: the stop signal comes before the end, and what ignores it, twice forked, dies at the end."""
    async with an_agent(house):
        await leased(house, one(app("daemon.py")), SOON_MS)
        await house.until(lambda: any(str(message).startswith("daemon") for message in house.messages()))
        await house.until(lambda: house.view().pid is not None)
        main = house.view().pid
        (said,) = [str(message) for message in house.messages() if str(message).startswith("daemon")]
        over = house.supervisor.guards.until(InstanceKey(SHOP, TEST, one("x").name, 1).lease)
    daemon = int(said.split()[1])
    assert main is not None
    assert over is not None
    await gone(main)
    assert clock.now().boottime_ms <= over.boottime_ms, "its signal came in time"
    assert lives(daemon), "what ignores the signal has its grace"
    await gone(daemon)
    assert 0 <= clock.now().boottime_ms - over.boottime_ms < 1_000
    await ended(house)


async def test_a_renewed_lease_lets_it_live(house: House) -> None:
    """As long as answers come it is not touched; the same process runs on when its agent has died, under its guard."""
    async with an_agent(house):
        key = await leased(house, one("sleep 600"), SOON_MS)
        before = await house.state("ready")
        await house.supervisor.guards.renew(key.lease, until(clock.now(), ENOUGH_MS), STOP)
    guard = await another_than(house)
    async with an_agent(house):
        assert house.supervisor.guards.until(key.lease) is not None, "the next agent knows its lease"
        after = await house.state("ready")
        assert (after.pid, guards(house)) == (before.pid, [guard])
        with anyio.move_on_after((SOON_MS + 500) / 1000):
            await gone(guard)
        assert lives(before.pid)
    await ended(house)
    assert not lives(before.pid)


async def test_a_guard_that_is_killed_is_followed_by_another(house: House) -> None:
    """By the agent that lives, at once; by the next one where there was none."""
    async with an_agent(house):
        await leased(house, one("sleep 600"), ENOUGH_MS)
        await house.state("ready")
        first = await another_than(house)
        os.kill(first, signal.SIGKILL)
        await gone(first)
        second = await another_than(house, first)
    os.kill(second, signal.SIGKILL)
    await gone(second)
    async with an_agent(house):
        await another_than(house, second)
    await ended(house)


async def another_than(house: House, guard: int = 0) -> int:
    """One that has begun; of one that is being executed the command cannot be seen yet."""
    with anyio.fail_after(20):
        while (found := await to_thread.run_sync(guards, house)) in ([], [guard]):
            pass
    return found[0]


async def test_nothing_starts_without_a_lease_that_lasts(house: House) -> None:
    """No lease, or one that is nearly over: it waits, and says why."""
    async with an_agent(house):
        house.launch(one("sleep 600"))
        assert "no lease" in (await house.state("exec_failed")).detail
        assert guards(house) == []
    async with an_agent(house):
        await leased(house, one("sleep 600"), GRACE_MS + LEAD_MS)
        assert "no lease" in (await house.state("exec_failed")).detail
    await ended(house)


async def test_a_lease_that_runs_out_while_it_waits_starts_nothing(house: House) -> None:
    """At a boot the apps' cgroup may come late: by then the lease is looked at, and not when it began to wait."""
    room = house.folder / "room"
    house.has_room = room.exists
    async with an_agent(house):
        key = await leased(house, one("echo runs; exec sleep 600"), GRACE_MS + LEAD_MS + 300)
        over = house.supervisor.guards.until(key.lease)
        assert over is not None
        with anyio.fail_after(20):
            while clock.now().boottime_ms <= over.boottime_ms - GRACE_MS - LEAD_MS:
                await to_thread.run_sync(guards, house)
        room.touch()
        assert "no lease" in (await house.state("exec_failed")).detail
        assert house.messages() == []
    await ended(house)


async def test_what_is_kept_needs_no_guard(house: House) -> None:
    """`on_partition = "keep"`: nobody ends it, and the next agent knows that it may live."""
    async with an_agent(house):
        key = await leased(house, one("sleep 600", keep=True), WITHOUT_END)
        await house.state("ready")
    async with an_agent(house):
        assert house.supervisor.guards.until(key.lease) is not None
        assert guards(house) == []
        await house.state("ready")
    await ended(house)


async def test_what_is_no_singleton_any_more_has_no_guard(house: House) -> None:
    """Another release makes it an ordinary type: when the lease is given back nothing ends what has its name then."""
    async with an_agent(house):
        key = await leased(house, one("sleep 600"), ENOUGH_MS)
        await house.state("ready")
        guard = await another_than(house)
    async with an_agent(house):
        await house.end(key)
        house.supervisor.forget(key)
        house.launch(worker("sleep 600"))
        plain = (await house.state("ready")).pid
        house.supervisor.guards.give_back(key.lease)
        await gone(guard)
        assert lives(plain)
    await ended(house)


async def test_what_starts_again_without_a_lease_dies_too(house: House) -> None:
    """An agent that was stopped for a while, and starts it again over its lease, does not outwit the guard."""
    async with an_agent(house):
        await leased(house, one("sleep 600"), SOON_MS)
        first = (await house.state("ready")).pid
        assert first is not None
        await gone(first)
        view = await house.state("exec_failed", "backoff")
        assert view.pid is None
    await ended(house)


OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("text", [f"{OTHER_BOOT} {2**50} 0 15", "", "x y z", "{boot} -1 0 15"])
async def test_a_lease_of_another_boot_is_none(house: House, text: str) -> None:
    """After a boot nothing starts without a fresh lease; nor by a file that says no lease at all."""
    leases = house.folder / "run" / "leases"
    leases.mkdir(parents=True)
    (leases / "shop.test.worker").write_text(text.replace("{boot}", clock.boot_id()))
    async with an_agent(house):
        house.launch(one("sleep 600"))
        assert "no lease" in (await house.state("exec_failed")).detail
    await ended(house)
