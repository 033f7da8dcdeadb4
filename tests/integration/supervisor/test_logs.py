"""What instances write comes out as records: whole, marked where it must be, no faster than somebody takes it."""

import fcntl
import os
import termios
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from agent.model.process import RestartPolicy
from agent.supervisor.folder import Folder
from agent.supervisor.logs import FOLLOWER_BYTES_MAX, Follower
from agent.supervisor.pipes import Pipe
from tests.integration.limits import few_fds
from tests.integration.supervisor.conftest import SHOP, TEST, House, app, script, worker

NEVER = RestartPolicy(policy="never")


@pytest.mark.anyio
async def test_each_line_is_a_record_that_says_who_wrote_it(house: House) -> None:
    """A line on either stream becomes one JSON object with app, release, instance, pid and stream."""
    house.launch(script("echo out; echo err >&2; echo $$ >&2", restart=NEVER))
    await house.state("stopped")
    (out,) = [record for record in house.records if record["stream"] == "stdout"]
    (err, pid) = [record for record in house.records if record["stream"] == "stderr"]
    said = {"app": "shop", "env": "test", "release": "v1", "process": "worker", "instance": "worker.1"}
    assert said.items() <= out.items()
    assert (out["message"], err["message"], str(out["pid"])) == ("out", "err", pid["message"])


@pytest.mark.anyio
async def test_strange_bytes_and_last_words_are_kept_and_marked(house: House) -> None:
    """Bytes that are no text, and a last line without its end, come out marked; nothing is lost at the exit."""
    house.launch(script(r"printf 'caf\351\n'; printf 'last words'; kill -9 $$", restart=NEVER))
    await house.state("stopped")
    bytes_, last = house.records
    assert (bytes_["message"], bytes_["invalid_utf8"]) == (r"caf\xe9", True)
    assert (last["message"], last["partial"]) == ("last words", True)


@pytest.mark.anyio
async def test_a_slow_reader_slows_the_app_and_loses_nothing(house: House) -> None:
    """While nobody takes the records the app waits in its write; afterwards every line is there, in order."""
    house.stalled = True
    house.launch(worker(app("lines.py", 100_000), restart=NEVER))
    await house.state("ready")
    pipe = os.open(house.folder / "run" / "i" / "shop.test.worker.1" / "stdout", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with anyio.fail_after(10):
            while waiting_in(pipe) < 128 * 1024:
                await checkpoint()
    finally:
        os.close(pipe)
    assert house.records == []
    assert house.view().state == "ready"
    house.stalled = False
    house.take()
    await house.state("stopped")
    assert house.messages() == [f"line {number}" for number in range(100_000)]


@pytest.mark.anyio
async def test_where_lines_may_be_dropped_the_app_never_waits_and_the_gap_is_counted(tmp_path: Path) -> None:
    """With on_full = "drop" an app that nobody listens to runs on; a record says how many lines are missing."""
    house = House(tmp_path, drops_logs=True)
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        for name in ("go", "end"):
            os.mkfifo(tmp_path / name)
        house.launch(script("echo first; read go < go; seq 100000; read go < end; echo last", restart=NEVER))
        await house.until(lambda: "first" in house.messages())
        house.stalled = True
        for name in ("go", "end"):
            await to_thread.run_sync((tmp_path / name).write_text, "go\n")
        house.stalled = False
        house.take()
        await house.state("stopped")
        tasks.cancel_scope.cancel()
    gaps = [record["dropped"] for record in house.records if "dropped" in record]
    assert all(isinstance(gap, int) and gap > 0 for gap in gaps)
    told = [message for message in house.messages() if message is not None]
    assert len(told) + sum(gap for gap in gaps if isinstance(gap, int)) == 100_002


def waiting_in(pipe: int) -> int:
    answer = fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(answer, "little")


@pytest.mark.anyio
async def test_the_last_lines_can_be_read_again(house: House) -> None:
    """The newest records of a process type or of one slot can be asked for, in the order in which they came."""
    for slot in (1, 2):
        house.launch(worker(app("lines.py", 3), restart=NEVER), slot)
    await house.until(lambda: all(view.state == "stopped" for view in house.views()))
    assert len(house.supervisor.tail(SHOP, TEST)) == 6
    assert len(house.supervisor.tail(SHOP, TEST, "worker", 2)) == 3
    assert house.supervisor.tail(SHOP, TEST, "web") == []
    (last,) = house.supervisor.tail(SHOP, TEST, "worker", 1, lines=1)
    assert b'"message":"line 2"' in last


@pytest.mark.anyio
async def test_a_follower_reads_along(house: House) -> None:
    """Who follows gets each record that matches from then on."""
    with house.supervisor.follow(SHOP, TEST, "worker") as follower:
        house.launch(script("echo one", restart=NEVER))
        with anyio.fail_after(10):
            records, dropped = await follower.take()
    assert (len(records), dropped) == (1, 0)
    assert b'"message":"one"' in records[0]


@pytest.mark.anyio
async def test_a_slow_follower_is_told_how_much_it_missed() -> None:
    """A follower that does not keep up loses records, by number, and slows nobody."""
    follower = Follower(lambda _key: True)
    chunk = b"x" * 1_023 + b"\n"
    for _ in range(FOLLOWER_BYTES_MAX // len(chunk) + 5):
        follower.offer(chunk)
    records, dropped = await follower.take()
    assert (len(records), dropped) == (FOLLOWER_BYTES_MAX // len(chunk), 5)
    follower.offer(chunk)
    assert await follower.take() == ([chunk.rstrip()], 0)


def test_a_pipe_that_cannot_be_made_keeps_nothing_open(tmp_path: Path) -> None:
    """A start that fails for want of descriptors takes none of the last ones away."""
    folder = Folder(tmp_path, "shop.test.web.1")
    folder.prepare()
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers, not paths
    with few_fds(1), pytest.raises(OSError, match="Too many open files"):
        Pipe.make(folder, "stdout")
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - numbers, not paths
