"""An agent dies and a next one takes up what it ran: processes, output, restarts and drains go on where they were."""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from agent.errors import RefusedError
from agent.linux import procfs
from agent.linux.fdstore import Inherited
from agent.model.process import ProcessType, StopPolicy
from agent.model.process import RestartPolicy as Restart
from agent.supervisor.launchable import InstanceKey, Launchable
from tests.integration.supervisor.conftest import SHOP, TEST, House, lives, script, worker
from tests.integration.supervisor.keeper import Keeper

pytestmark = pytest.mark.anyio
NEVER = Restart(policy="never")
NUMBERS = "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.01; done"


@pytest.fixture
def house(tmp_path: Path, keeper: Keeper) -> House:
    return House(tmp_path, store=keeper.store)


@asynccontextmanager
async def an_agent(house: House, inherited: Inherited | None = None, **more: object) -> AsyncIterator[None]:
    """An agent that at the end leaves everything as it is; the instances of an earlier one are taken up first."""
    house.supervisor = house.another(inherited)
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        for record in house.supervisor.left(SHOP, TEST):
            kept = record.instance
            assert kept is not None
            given = {"key": record.key, "release": kept.release, "type": kept.type, "cwd": kept.cwd, "config": {}}
            house.supervisor.adopt(Launchable(**(given | more)))  # type: ignore[arg-type]  # the tests' own words
        yield
        tasks.cancel_scope.cancel()


async def left_by_one(house: House, process: ProcessType, *states: str) -> InstanceKey:
    """What an agent leaves that has launched this."""
    async with an_agent(house):
        key = house.launch(process)
        await house.state(*(states or ("ready",)))
    return key


async def test_the_process_goes_on_and_no_line_is_lost_or_doubled(house: House, keeper: Keeper) -> None:
    """The same process, as ready as before; what it wrote meanwhile comes out, each line once and in order."""
    key = await left_by_one(house, script(NUMBERS))
    before = house.view()
    for _ in range(3):
        async with an_agent(house, keeper.inherited()):
            seen = len(house.messages())
            await house.until(lambda seen=seen: len(house.messages()) > seen + 20)  # type: ignore[misc]
            after = house.view()
            assert (after.pid, after.state, after.since, after.restarts) == (before.pid, "ready", before.since, 0)
    async with an_agent(house, keeper.inherited()):
        await house.end(key)
    assert house.messages() == [f"line {number}" for number in range(len(house.messages()))]
    assert not lives(before.pid)
    house.supervisor.forget(key)


async def test_without_a_store_it_is_found_by_its_number_and_its_path(house: House, keeper: Keeper) -> None:
    """The store is empty, as after a stop and a start: process and log pipe are found by what is on record."""
    key = await left_by_one(house, script(NUMBERS))
    before = house.view()
    async with an_agent(house):
        seen = len(house.messages())
        await house.until(lambda: len(house.messages()) > seen + 20)
        assert house.view().pid == before.pid
        await house.end(key)
    assert house.messages() == [f"line {number}" for number in range(len(house.messages()))]
    assert ("descriptors did not come back" in house.texts()) is keeper.store.keeps


async def test_one_that_ends_while_there_is_no_agent_has_its_last_words(house: House, keeper: Keeper) -> None:
    """The next agent reads what it wrote to the end, knows how it ended, and starts it again."""
    os.mkfifo(house.folder / "go")
    await left_by_one(house, script("echo first; read go < go; echo last words; exit 3"))
    pid = house.view().pid
    assert pid is not None
    await to_thread.run_sync((house.folder / "go").write_text, "go\n")
    await to_thread.run_sync(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    async with an_agent(house, keeper.inherited()):
        assert (await house.exit_of(pid))["how"] == "exited with code 3"
        assert house.view().restarts == 1
        await house.end(InstanceKey(SHOP, TEST, house.view().process, 1))
    assert house.messages()[:2] == ["first", "last words"]


async def test_one_whose_end_nobody_saw_counts_as_a_failure(house: House) -> None:
    """Reaped by somebody else, and no pidfd kept: how it ended is unknown, which is not 0."""
    await left_by_one(house, script("sleep 600", restart=Restart(policy="on-failure")))
    pid = house.view().pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    await to_thread.run_sync(os.waitpid, pid, 0)
    async with an_agent(house):
        told = await house.exit_of(pid)
        assert (told["how"], told["code"], told["clean"]) == ("ended, nobody could tell how", "unknown", False)
        assert house.view().restarts == 1
        await house.end(InstanceKey(SHOP, TEST, house.view().process, 1))


async def test_a_drain_goes_on_with_one_signal(house: House, keeper: Keeper) -> None:
    """An agent that dies while an instance drains: the next one waits on, and the signal is not sent again."""
    ignores = script(
        "trap 'echo told' TERM; echo up; while :; do sleep 0.05; done", stop=StopPolicy(linger_ms=0, grace_ms=2_500)
    )
    async with an_agent(house):
        key = house.launch(ignores)
        await house.until(lambda: "up" in house.messages())
        house.supervisor.stop(key)
        await house.until(lambda: "told" in house.messages())
    async with an_agent(house, keeper.inherited()):
        assert house.view().state == "draining"
        await house.state("stopped")
    assert house.messages().count("told") == 1
    assert "outlived its grace" in house.texts()


async def test_restarts_are_not_forgotten(house: House, keeper: Keeper) -> None:
    """A crash loop stays one, and its pause goes on, over the death of the agent."""
    slow = Restart(base_delay_ms=600_000, max_delay_ms=600_000)
    key = await left_by_one(house, worker("/bin/false", restart=slow), "backoff")
    before = house.view()
    async with an_agent(house, keeper.inherited()):
        assert (house.view().state, house.view().restarts) == ("backoff", before.restarts)
        await house.end(key)


async def test_what_has_ended_for_good_stays_so(house: House, keeper: Keeper) -> None:
    """An instance whose policy is never to start again is not started by the next agent."""
    await left_by_one(house, script("echo once", restart=NEVER), "stopped")
    async with an_agent(house, keeper.inherited()):
        assert house.view().state == "stopped"
        assert house.view().detail == "exited with code 0"
    assert house.messages() == ["once"]


async def test_config_that_cannot_be_read_again_ends_nothing(house: House, keeper: Keeper) -> None:
    """The process that runs is not asked for its config; only a restart is, and then the reason is told."""

    async def refuse() -> dict[str, str]:
        raise RefusedError("this host was not given the environment's key")

    key = await left_by_one(house, script("sleep 600"))
    pid = house.view().pid
    async with an_agent(house, keeper.inherited(), config=refuse):
        assert (house.view().pid, house.view().state) == (pid, "ready")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert "the environment's key" in (await house.state("exec_failed")).detail
        await house.end(key)


async def test_a_torn_record_is_set_aside_and_its_process_ended(house: House, keeper: Keeper) -> None:
    """Nobody can tell any more what it was to be: it is told, its file is kept for a person, its tree is gone."""
    key = await left_by_one(house, script("sleep 600 & sleep 600"))
    pid = house.view().pid
    record = house.folder / "run" / "records" / f"{key}.json"
    os.truncate(record, record.stat().st_size // 2)
    async with an_agent(house, keeper.inherited()):
        assert house.views() == ()
        assert "its record cannot be trusted: it is ended" in house.texts()
        assert not lives(pid)
    assert record.with_suffix(".unreadable").exists()
    await to_thread.run_sync(os.waitpid, pid or 0, 0)


def set_aside_before(path: Path) -> None:
    path.touch()
    (path.with_suffix(".unreadable") / "x").mkdir(parents=True)


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "nothing in it": Path.touch,
    "a folder": Path.mkdir,
    "nesting without end": lambda path: path.write_text("[" * 100_000),
    "a pipe that nobody writes": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "one that was set aside before": set_aside_before,
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("name", ["shop.test.worker.1", "shop.test.worker.01", "shop.test.worker.\u00b2", "x"])
async def test_whatever_lies_among_the_records_an_agent_starts(
    house: House, name: str, make: Callable[[Path], object]
) -> None:
    """It is set aside, or left alone where it names nobody."""
    folder = house.folder / "run" / "records"
    folder.mkdir(parents=True)
    make(folder / f"{name}.json")
    with anyio.fail_after(10):
        async with an_agent(house):
            assert house.views() == ()
    assert [one.name for one in folder.iterdir()] == [f"{name}.unreadable"]


async def test_a_stranger_who_bears_our_mark_keeps_no_agent_from_starting(house: House) -> None:
    """Anybody on the host may write into an environment what looks like an instance's name and is none."""
    for slot in ("\u00b2", "9" * 5_000, "-1", "01", ""):
        mark = {"ROLLWAY_DRAIN_FILE": f"{house.folder}/run/i/shop.test.worker.{slot}/drain"}
        async with await anyio.open_process(["/bin/sleep", "600"], env=mark) as stranger:
            async with an_agent(house):
                assert house.views() == ()
            assert stranger.returncode is None
            stranger.kill()


async def test_a_process_without_a_record_is_ended(house: House) -> None:
    """What bears the mark of this host's instances and is on no record cannot be let run for ever."""
    key = await left_by_one(house, script("sleep 600"))
    pid = house.view().pid
    (house.folder / "run" / "records" / f"{key}.json").unlink()
    async with an_agent(house):
        assert house.views() == ()
        assert "it runs without a record: it is ended" in house.texts()
        assert not lives(pid)
    await to_thread.run_sync(os.waitpid, pid or 0, 0)


async def test_what_is_stored_anew_under_a_name_that_nobody_took_stays(house: House, keeper: Keeper) -> None:
    """An agent that was killed had stored what no record tells of: the next one drops that, and not what it starts."""
    key = await left_by_one(house, script("sleep 600"))
    (house.folder / "run" / "records" / f"{key}.json").unlink()
    inherited = keeper.inherited()
    async with an_agent(house, inherited):
        house.launch(script("sleep 600"))
        await house.state("ready")
        inherited.drop_rest(house.store)
        stored = {name: len(kept) for name, kept in keeper.kept().items() if name.startswith(f"{key}/")}
        assert stored == {name: 3 if name.endswith("/ways") else 1 for name in stored}
        assert {name.rpartition("/")[2] for name in stored} >= {"pidfd", "ways"}
        await house.end(key)


async def test_whoever_has_its_number_now_is_not_touched(house: House) -> None:
    """The instance is gone, and another process, which leads a session of its own, was given its number meanwhile."""
    key = await left_by_one(house, script("sleep 600"))
    pid = house.view().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await to_thread.run_sync(os.waitpid, pid, 0)
    record = house.folder / "run" / "records" / f"{key}.json"
    stranger = await anyio.open_process(["/bin/sleep", "600"], start_new_session=True)
    try:
        started = procfs.start_time(stranger.pid)
        told = json.loads(record.read_text())
        record.write_text(json.dumps(told | {"pid": stranger.pid, "start_time": (started or 0) - 1}))
        async with an_agent(house):
            await house.until(lambda: house.view().restarts == 1 and house.view().state == "ready")
            await house.end(key)
        assert lives(stranger.pid)
    finally:
        stranger.kill()
        await stranger.aclose()


async def test_a_record_of_another_boot_means_nothing(house: House) -> None:
    """Numbers of an earlier boot are other processes now: none of them is touched."""
    key = await left_by_one(house, script("sleep 600"))
    pid = house.view().pid
    record = house.folder / "run" / "records" / f"{key}.json"
    text = record.read_text()
    record.write_text(text.replace('"boot_id":"', '"boot_id":"0'))
    other = house.folder / "run" / "i"
    other.rename(house.folder / "run" / "of another boot")  # its processes are not there any more, so no mark is
    async with an_agent(house):
        assert house.views() == ()
        assert not record.exists()
    os.kill(pid or 0, signal.SIGKILL)
    await to_thread.run_sync(os.waitpid, pid or 0, 0)


async def test_an_admin_process_does_not_outlive_its_agent(house: House) -> None:
    """A release command whose agent died is ended by the next one, with its tree, before anything else."""
    async with an_agent(house), anyio.create_task_group() as tasks:
        tasks.start_soon(house.supervisor.run_once, house.admin("echo $$; sleep 600 & sleep 600"))
        await house.until(lambda: bool(house.messages()))
        pid = int(str(house.messages()[0]))
        record = next((house.folder / "run" / "records").glob("*.json"))
        text = await to_thread.run_sync(record.read_text)
        tasks.cancel_scope.cancel()
    record.write_text(text)
    assert procfs.process(pid) is None
    async with an_agent(house):
        assert house.views() == ()
    assert not list((house.folder / "run" / "records").iterdir())


async def test_the_store_holds_no_more_than_what_runs(house: House, keeper: Keeper) -> None:
    """After ten starts there are those of one process, after its end its last lines; of what is silent few."""
    async with an_agent(house):
        key = house.launch(script("echo line; exit 1"))
        await house.until(lambda: house.view().restarts >= 10)
        await house.end(key)
        assert [name for name in keeper.names() if name.startswith(str(key))] == [f"{key}/journal"]
        for slot, process in ((2, worker("sleep 600")), (3, script("echo up; exec sleep 600"))):
            house.launch(process, slot)
        await house.until(lambda: [view.state for view in house.views()] == ["stopped", "ready", "ready"])
        await house.until(lambda: "up" in house.messages())
        kept = [name.rpartition(".worker.")[2] for name in keeper.names() if not name.startswith(f"{key}/")]
        assert kept == ["2/pidfd", "2/ways", "3/journal", "3/pidfd", "3/stdout-taken", "3/ways"]
        for slot in (2, 3):
            house.supervisor.stop(InstanceKey(SHOP, TEST, house.views()[0].process, slot))
        await house.until(lambda: all(view.state == "stopped" for view in house.views()))
