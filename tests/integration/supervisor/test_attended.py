"""Commands that somebody watches: their streams, their end, and that nothing is left of them."""

import os
import pwd
import signal
from pathlib import Path

import anyio
import msgspec
import pytest

from agent.linux import procfs
from agent.linux.executable import ExecFailure
from agent.linux.spawn import keep_own_fds
from agent.model.ids import ReleaseName
from agent.model.process import Limits, Sandbox
from agent.supervisor import attended as module
from agent.supervisor.attended import Attended
from agent.supervisor.launchable import WatchedCommand
from tests.integration.supervisor.conftest import DEADLINE_S, SHOP, TEST, House, ended, lives
from tests.integration.supervisor.test_sandbox import DAEMON, short

__all__ = ["short"]
pytestmark = pytest.mark.anyio


def command(house: House, script: str, **more: object) -> WatchedCommand:
    given: dict[str, object] = {
        "app": SHOP,
        "environment": TEST,
        "release": ReleaseName("v1"),
        "words": ("sh", "-c", script),
        "cwd": str(house.folder),
        "config": {"COLOUR": "green"},
        "limits": Limits(),
        "sandbox": Sandbox(),
        "size": None,
        "takes_input": False,
    }
    return WatchedCommand(**(given | more))  # type: ignore[arg-type]  # the fields are the tests' own words


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets the whole grace."""
    monkeypatch.setattr(module, "GRACE_S", 0.2)


async def all_of(attended: Attended, number: int = 0) -> bytes:
    """What it writes, to the end."""
    found = b""
    with anyio.fail_after(DEADLINE_S):
        while data := await attended.streams.read(number):
            found += data
    return found


async def line(attended: Attended) -> str:
    found = b""
    with anyio.fail_after(DEADLINE_S):
        while not found.endswith(b"\n"):
            found += await attended.streams.read(0)
    return found.decode().strip()


def begun(attended: Attended | ExecFailure) -> Attended:
    assert isinstance(attended, Attended), attended
    return attended


def left(house: House) -> list[str]:
    """What is on the disk for commands."""
    return [path.name for folder in ("records", "i") for path in (house.folder / "run" / folder).iterdir()]


async def test_its_streams_are_its_own_and_none_of_it_is_in_the_logs(house: House) -> None:
    """Both outputs apart, byte for byte; the input that it is given, and its end; nothing of it stays."""
    given = command(house, "cat; printf 'a\\0b' >&2; echo $COLOUR", takes_input=True)
    async with house.supervisor.watching(given) as started:
        attended = begun(started)
        assert left(house) == ["shop.test.run.1.json", "shop.test.run.1"]
        assert await attended.streams.write(b"\xff\0 in ")
        attended.streams.end_input()
        status = await attended.wait()
        assert (await all_of(attended), await all_of(attended, 1)) == (b"\xff\0 in green\n", b"a\0b")
    assert (status.code, status.signal) == (0, None)
    assert not house.records
    assert not left(house)


async def test_it_has_no_descriptor_but_its_own(house: House) -> None:
    """Neither ours, nor the other end of its own pipes."""
    keep_own_fds()
    async with house.supervisor.watching(command(house, "ls /proc/self/fd", takes_input=True)) as started:
        attended = begun(started)
        await attended.wait()
        assert (await all_of(attended)).split() == [b"0", b"1", b"2", b"3"]  # the last is that of the folder listed


async def test_its_terminal_is_its_controlling_one(house: House) -> None:
    """It leads a session on it, is in the foreground, knows its size, and gets the signals of its keys."""
    script = "tty </dev/tty; stty size; stty -a | grep -o ' iutf8'; echo ready; exec sleep 600"
    async with house.supervisor.watching(command(house, script, size=(33, 101), takes_input=True)) as started:
        attended = begun(started)
        said = b""
        with anyio.fail_after(DEADLINE_S):
            while b"ready" not in said:
                said += await attended.streams.read(0)
        assert said.replace(b"\r", b"").split(b"\n")[1:3] == [b"33 101", b" iutf8"]
        found = procfs.process(attended.pid)
        assert found is not None
        assert found.session == attended.pid
        await attended.streams.write(b"\x03")
        with anyio.fail_after(DEADLINE_S):
            assert (await attended.wait()).signal == signal.SIGINT


async def test_what_it_leaves_behind_has_its_last_words_and_is_ended(house: House) -> None:
    """Whoever holds its output does not hold it up, and its end is that of its main process."""
    async with house.supervisor.watching(command(house, "(sleep 0.1; echo late) & sleep 600 & echo $!; exit 3")) as one:
        attended = begun(one)
        with anyio.fail_after(DEADLINE_S):
            assert (await attended.wait()).code == 3
        pid, late = (await all_of(attended)).split()
    assert late == b"late"
    assert not lives(int(pid))


ENDS = {"with pipes": (None, "TERM"), "with a terminal": ((24, 80), "HUP")}


@pytest.mark.parametrize(("size", "told"), ENDS.values(), ids=ENDS)
async def test_who_is_to_end_is_told_and_has_its_grace(house: House, size: tuple[int, int] | None, told: str) -> None:
    """By SIGTERM, or as a terminal that is hung up, though it is stopped; what it says then can still be read."""
    script = f"trap 'echo bye; exit 5' {told}; echo begun; kill -STOP $$; while :; do sleep 0.05; done"
    async with house.supervisor.watching(command(house, script, size=size)) as started:
        attended = begun(started)
        assert await line(attended) == "begun"
        await attended.end("it is time")
        await attended.end("it is late")
        with anyio.fail_after(DEADLINE_S):
            assert (await attended.wait()).code == 5
        assert b"bye" in await all_of(attended)
        assert attended.reason == "it is time"


async def test_who_heeds_nothing_is_ended_as_a_tree(house: House, quick: None) -> None:
    """After its grace, with what has left its session."""
    await _ended_as_a_tree(house)


async def test_who_heeds_nothing_is_ended_by_its_cgroup(in_leaves: House, quick: None) -> None:
    """The same where there is cgroup v2."""
    await _ended_as_a_tree(in_leaves)


async def _ended_as_a_tree(house: House) -> None:
    script = "trap '' TERM HUP INT; setsid sh -c 'echo $$; sleep 600; :' & wait; sleep 600"
    async with house.supervisor.watching(command(house, script)) as started:
        attended = begun(started)
        pids = [int(await line(attended)), attended.pid]
        attended.signal(signal.SIGINT)
        assert all(map(lives, pids))
    assert not any(map(lives, pids))
    assert not left(house)


async def test_a_next_agent_ends_what_a_killed_one_left(house: House) -> None:
    """By its record, whatever it heeds."""
    async with house.supervisor.watching(command(house, "trap '' TERM HUP; echo $$; sleep 600; :")) as started:
        pid = int(await line(begun(started)))
        async with anyio.create_task_group() as tasks:
            await tasks.start(house.another().run)
            await ended(pid)
            assert not left(house)
            tasks.cancel_scope.cancel()


async def test_one_that_cannot_be_started_is_told(house: House) -> None:
    """With its reason; nothing of it stays."""
    given = msgspec.structs.replace(command(house, ""), words=("bin/nope", "x"))
    async with house.supervisor.watching(given) as started:
        assert isinstance(started, ExecFailure)
        assert str(started) == f"{house.folder}/bin/nope: No such file or directory"
    assert not left(house)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
@pytest.mark.parametrize("size", [None, (24, 80)], ids=["pipes", "a terminal"])
async def test_it_is_the_user_of_its_type(short: Path, size: tuple[int, int] | None) -> None:
    """With its sandbox and limits; its streams, opened again, and its terminal are that user's."""
    house = House(short)
    script = (
        'id -un; ulimit -n; echo again >/dev/stdout; grep NoNewPrivs: /proc/self/status; touch "$TMPDIR/x" && echo mine'
    )
    given = command(house, script, sandbox=Sandbox(user=DAEMON), limits=Limits(open_files=99), size=size)
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        async with house.supervisor.watching(given) as started:
            attended = begun(started)
            await attended.wait()
            assert (await all_of(attended)).decode().split() == [
                pwd.getpwnam(DAEMON).pw_name, "99", "again", "NoNewPrivs:", "1", "mine",
            ]  # fmt: skip
        tasks.cancel_scope.cancel()
