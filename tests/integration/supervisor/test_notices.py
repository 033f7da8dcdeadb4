"""What real processes say by sd_notify: to the agent that lives, to the next one, in a flood, and from outside."""

import contextlib
import resource
import shlex
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from msgspec import structs

from agent.linux.notifysocket import PATH_BYTES_MAX
from agent.model.process import NotifyCheck, Probe, Probes, ProcessType
from tests.integration.supervisor.conftest import House, app, worker
from tests.integration.supervisor.keeper import Keeper
from tests.integration.supervisor.test_adopt import an_agent, left_by_one

pytestmark = pytest.mark.anyio
TOLD = Probe(check=NotifyCheck(), period_ms=100, failures=100)


@pytest.fixture
def house(keeper: Keeper) -> Iterator[House]:
    """In a folder whose path leaves room for the address of a socket."""
    with tempfile.TemporaryDirectory(prefix="rw-") as folder:
        yield House(Path(folder), store=keeper.store)


def notifier(*words: object, probes: Probes | None = None) -> ProcessType:
    return structs.replace(
        worker(app("notifier.py", shlex.join(map(str, words)))), probes=probes or Probes(startup=TOLD)
    )


async def test_what_it_says_is_done(house: House) -> None:
    """READY=1 makes it ready, its status is shown, a child may speak for it, and a barrier ends when all is heard."""
    go = house.folder / "go"
    async with an_agent(house):
        probes = Probes(startup=TOLD, readiness=TOLD)
        words = ("until", go, "child", "READY=1,STATUS=serves", "RELOADING=1", "barrier")
        key = house.launch(notifier(*words, probes=probes))
        await house.until(lambda: house.view().detail == "it has not said READY=1 yet (startup probe)")
        assert house.view().state == "starting"
        go.touch()
        await house.until(lambda: "said barrier" in house.messages())
        assert house.view().detail == "it says that it is reloading"
        assert house.texts().count("ready") == 1
        await house.end(key)


async def test_the_status_is_shown(house: House) -> None:
    """What a process that serves says of itself can be seen, on one line and without anything a terminal obeys."""
    async with an_agent(house):
        key = house.launch(notifier("READY=1,STATUS=3\x1b[31m workers"))
        await house.until(lambda: house.view().detail == "3 [31m workers")
        assert house.view().state == "ready"
        await house.end(key)


async def test_a_watchdog_is_told_and_kept(house: House) -> None:
    """The process sees WATCHDOG_USEC; when it says nothing any more it is started again."""
    probes = Probes(liveness=Probe(check=NotifyCheck(), period_ms=100, failures=3))
    async with an_agent(house):
        key = house.launch(structs.replace(worker("/usr/bin/env"), probes=probes))
        await house.until(lambda: "WATCHDOG_USEC=300000" in house.messages())
        await house.end(key)
        house.supervisor.forget(key)
        key = house.launch(notifier("WATCHDOG=1", probes=probes))
        await house.until(lambda: house.view().restarts > 0)
        reasons = [fields["reason"] for text, fields in house.told if text == "is restarted"]
        assert str(reasons[0]).startswith("it did not say WATCHDOG=1 for ")
        await house.end(key)


async def test_what_is_said_while_there_is_no_agent_is_heard_by_the_next(house: House, keeper: Keeper) -> None:
    """A process that gets ready meanwhile is ready for the next agent, once for all, and is not restarted."""
    go = house.folder / "go"
    await left_by_one(house, notifier("until", go, "READY=1,STATUS=warm"), "starting")
    pid = house.view().pid
    go.touch()
    for _ in range(2):
        async with an_agent(house, keeper.inherited()):
            view = await house.state("ready")
            assert (view.pid, view.restarts) == (pid, 0)
    async with an_agent(house, keeper.inherited()):
        await house.end(next(iter(house.supervisor._instances)))


async def test_without_a_store_it_may_speak_on(house: House) -> None:
    """The store is empty, as after a stop and a start: the process finds a socket where it always was."""
    go = house.folder / "go"
    key = await left_by_one(house, notifier("until", go, "READY=1"), "starting")
    async with an_agent(house):
        go.touch()
        await house.state("ready")
        await house.end(key)


async def test_who_is_not_of_the_instance_is_not_heard(house: House) -> None:
    """Somebody else of the same user says READY=1: nothing comes of it, and the instance is heard after it."""
    go = house.folder / "go"
    async with an_agent(house):
        key = house.launch(notifier("until", go, "READY=1"))
        path = house.folder / "run" / "i" / str(key) / "notify"
        await house.until(lambda: path.exists() and house.view().pid is not None)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            for _ in range(3):
                sock.sendto(b"READY=1", str(path))
        await anyio.wait_all_tasks_blocked()
        assert house.view().state == "starting"
        go.touch()
        await house.state("ready")
        await house.end(key)


async def test_a_flood_of_notices_holds_up_nobody(house: House) -> None:
    """Who speaks without end waits in its own send: others are started meanwhile, and the agent grows by nothing."""
    async with an_agent(house):
        key, begun_s = house.launch(notifier("READY=1", "flood")), time.monotonic()
        await house.until(lambda: number_said(house) > 0)
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        other = house.launch(worker("/bin/false"), 2)
        await house.until(lambda: any(view.slot == 2 and view.restarts > 10 for view in house.views()))
        await house.until(lambda: number_said(house) > 500)
        assert number_said(house) < 1_000 * (time.monotonic() - begun_s)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 16 * 1024
        assert [view.restarts for view in house.views() if view.slot == 1] == [0]
        for one in (key, other):
            house.supervisor.stop(one)
        await house.until(lambda: all(view.state == "stopped" for view in house.views()))


def number_said(house: House) -> int:
    """How far the flood of instance 1 is heard, or a little less."""
    detail = next(view.detail for view in house.views() if view.slot == 1)
    return int(detail.removeprefix("number ")) if detail.startswith("number ") else 0


async def test_a_path_too_long_for_a_socket(house: House) -> None:
    """An instance that need not speak runs without a socket; one that must is not started, and it is said why."""
    house.folder = house.folder / ("x" * PATH_BYTES_MAX)
    house.folder.mkdir()
    async with an_agent(house):
        key = house.launch(worker("/usr/bin/env"))
        await house.until(lambda: house.view().restarts > 0)
        assert not [said for said in house.messages() if str(said).startswith("NOTIFY_SOCKET")]
        await house.end(key)
        house.supervisor.forget(key)
        key = house.launch(notifier("READY=1"))
        assert "File name too long" in (await house.state("exec_failed")).detail
        with contextlib.suppress(TimeoutError):
            await house.end(key)
