"""MAINPID by sd_notify: the instance goes on as another process, for this agent and the next, or it is said why not."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from agent.host import orphans
from agent.linux import pidfd
from agent.model.process import NotifyCheck, Probe, Probes, ProcessType
from agent.model.process import RestartPolicy as Restart
from tests.integration.supervisor.conftest import House, app, ended, lives, reaped, worker
from tests.integration.supervisor.keeper import Keeper
from tests.integration.supervisor.test_adopt import an_agent

pytestmark = pytest.mark.anyio
TOLD = Probe(check=NotifyCheck(), period_ms=100, failures=200)
FOLLOWED = "has another main process"
IGNORED = "the main process that it names is ignored"


@pytest.fixture
def house(keeper: Keeper) -> Iterator[House]:
    """In a folder whose path leaves room for the address of a socket."""
    with tempfile.TemporaryDirectory(prefix="rw-") as folder:
        yield House(Path(folder), store=keeper.store)


def successor(*words: object) -> ProcessType:
    never = Restart(policy="never")
    return structs.replace(worker(app("successor.py", *words), restart=never), probes=Probes(startup=TOLD))


def child_of(house: House) -> int:
    """The process that the first one has started, once it has said who it is."""
    said = [str(message) for message in house.messages()]
    return next((int(message.split()[1]) for message in said if message.startswith("child ")), 0)


async def followed(house: House) -> int:
    await house.until(lambda: FOLLOWED in house.texts() and child_of(house) == house.view().pid)
    return child_of(house)


@pytest.mark.parametrize("how", ["at-once", "until"])
@pytest.mark.parametrize("where", ["", "session"])
async def test_the_instance_goes_on_as_the_process_that_it_names(house: House, how: str, where: str) -> None:
    """The end of the first one, be it at once, is nothing; the stop signal goes to the new one, and nothing is left."""
    go = house.folder / "go"
    async with an_agent(house):
        key = house.launch(successor(how, go, where))
        child = await followed(house)
        first = next(fields["pid"] for text, fields in house.told if text == "started")
        go.touch()
        await reaped(int(first))
        assert (house.view().state, house.view().pid, house.view().restarts) == ("ready", child, 0)
        await house.end(key)
        assert "got SIGTERM" in house.messages()
        assert not lives(child)
        assert (FOLLOWED, {"pid": child, "was": first}) in house.told
        assert "exited" in house.texts()


async def test_its_end_is_the_end_of_the_instance(house: House) -> None:
    """What the new main process ends with is what the instance ends with, whoever its parent is by then."""
    go = house.folder / "go"
    async with an_agent(house):
        house.launch(successor("at-once", go))
        child = await followed(house)
        go.with_suffix(".child").touch()
        await house.state("stopped")
        (told,) = [fields for text, fields in house.told if text == "exited"]
        assert told["pid"] == child
        assert told["how"] in ("exited with code 9", "ended, nobody could tell how")


@pytest.mark.parametrize("keeps", [True, False])
async def test_the_next_agent_follows_it_too(house: House, keeper: Keeper, *, keeps: bool) -> None:
    """The new main process is on record: with and without a store a next agent waits for it and stops it."""
    async with an_agent(house):
        key = house.launch(successor("at-once", house.folder / "go", "session"))
        child = await followed(house)
    async with an_agent(house, keeper.inherited() if keeps else None):
        await house.until(lambda: "adopted" in house.texts())
        assert (house.view().pid, house.view().state) == (child, "ready")
        await house.end(key)
    assert "got SIGTERM" in house.messages()
    assert not lives(child)


@pytest.mark.parametrize("keeps", [True, False])
async def test_what_it_names_while_there_is_no_agent_is_heard(house: House, keeper: Keeper, *, keeps: bool) -> None:
    """The first one hands over and ends while there is no agent: the next one goes on with the new one."""
    go = house.folder / "go"
    async with an_agent(house):
        key = house.launch(successor("at-once", go, "late"))
        await house.until(lambda: child_of(house) > 0 and house.view().pid is not None)
        first = house.view().pid
        assert first is not None
    go.with_suffix(".late").touch()
    await ended(first)
    inherited = keeper.inherited()
    if not keeps:  # the handle of the first one alone has not come back
        lost = inherited.take(f"{key}/pidfd", pidfd.is_pidfd)
        assert lost is not None
        os.close(lost)
    async with an_agent(house, inherited):
        child = await followed(house)
        assert (house.view().restarts, lives(child)) == (0, True)
    async with an_agent(house, keeper.inherited()):
        await house.until(lambda: house.texts().count("adopted") > 1)
        assert (house.view().pid, house.view().restarts) == (child, 0)
        await house.end(key)
    assert "got SIGTERM" in house.messages()


async def test_a_dead_agent_s_drain_signals_the_new_one(house: House) -> None:
    """What drains in the place of a dead agent knows from the record whom to tell."""
    async with an_agent(house):
        house.launch(successor("at-once", house.folder / "go", "session"))
        child = await followed(house)
    found = orphans.find(house.folder / "run")
    assert [one.pid for one in found] == [child]
    assert await orphans.drain(found, house.folder / "run", lambda _left: None) == ()
    assert not lives(child)


BAD = {
    "0": "no process has that number",
    "1": "it is not of this instance",
    "nobody": "no process has that number",
    "18446744073709551615": "no process has that number",
}


@pytest.mark.parametrize("number", [*BAD, "agent", "thread"])
async def test_who_cannot_be_the_main_process_is_not_believed(house: House, number: str) -> None:
    """Nobody, init, the agent, a thread: it is said once why that counts for nothing, and the instance goes on."""
    words = ("thread",) if number == "thread" else ("bad", os.getpid() if number == "agent" else number)
    async with an_agent(house):
        key = house.launch(structs.replace(successor(*words), probes=Probes()))
        pid = (await house.state("ready")).pid
        await house.until(lambda: IGNORED in house.texts())
        (fields,) = (fields for text, fields in house.told if text == IGNORED)
        if number in BAD:
            assert fields["reason"] == BAD[number]
        assert (house.view().pid, house.view().restarts) == (pid, 0)
        assert FOLLOWED not in house.texts()
        await house.end(key)


async def test_a_signal_reaches_who_is_the_main_process_now(house: House) -> None:
    """The new main process is killed from outside: that ends the instance, although the first one still lives."""
    async with an_agent(house):
        house.launch(successor("until", house.folder / "go"))
        child = await followed(house)
        os.kill(child, signal.SIGKILL)
        await house.state("stopped")
        first = next(fields["pid"] for text, fields in house.told if text == "started")
        assert not lives(int(first)), "it ended with the instance"
