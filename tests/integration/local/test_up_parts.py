"""The parts of `up`: locks that the kernel frees, children that come back, leftovers that are ended."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import pytest

from agent.errors import RefusedError
from agent.local import layout, leftovers, net
from agent.local.children import Child
from agent.local.up import marked

pytestmark = pytest.mark.anyio
DEADLINE_S: Final = 30
PYTHON: Final = (sys.executable,)
BLOCK: Final = net.parse_block("127.99.7.0/24")


def test_a_block_is_had_by_one_at_a_time() -> None:
    """Who asks for a taken block is refused by its name; free again, it can be had."""
    held = net.lock_block(BLOCK, None)
    with pytest.raises(RefusedError, match=re.escape("127.99.7.0/24")):
        net.lock_block(BLOCK, None)
    held.socket.close()
    net.lock_block(BLOCK, None).socket.close()


def test_without_a_wish_the_last_block_is_taken_if_it_is_free() -> None:
    """A fleet keeps its addresses from one `up` to the next, and moves only when somebody else has them."""
    first = net.lock_block(None, BLOCK)
    second = net.lock_block(None, BLOCK)
    assert first.block == BLOCK
    assert second.block != BLOCK
    first.socket.close()
    second.socket.close()


def test_a_block_in_which_somebody_listens_is_not_free() -> None:
    """What a killed `up` has left holds no lock: others keep away from its addresses, the next one gets them back."""
    with net.lock_block(None, None).socket, socket.create_server((BLOCK.host(1), 0)):
        elsewhere = net.lock_block(None, BLOCK)
        assert elsewhere.block != BLOCK
        with elsewhere.socket, socket.create_server((elsewhere.block.host(3), 0)):
            elsewhere.socket.close()
            with (another := net.lock_block(None, None)).socket:
                assert another.block != elsewhere.block
            with (back := net.lock_block(None, elsewhere.block, runs_here=True)).socket:
                assert back.block == elsewhere.block


def test_a_folder_is_had_by_one_at_a_time(tmp_path: Path) -> None:
    """The second `up` on a folder learns which process has it."""
    held = layout.hold(tmp_path / "up")
    with pytest.raises(RefusedError, match=str(os.getpid())):
        layout.hold(tmp_path / "up")
    os.close(held)
    os.close(layout.hold(tmp_path / "up"))


def test_what_is_written_for_a_fleet_is_private_and_lasts(tmp_path: Path) -> None:
    """Token and authority stay from one start to the next; nobody else on the machine can read them."""
    place = layout.Layout(tmp_path)
    hosts = layout.prepare(place, BLOCK, 2)
    token, authority = place.client_file.read_text(), (tmp_path / "ca" / "ca.pem").read_bytes()
    assert [(host.name, host.address) for host in hosts] == [("h1", "127.99.7.1"), ("h2", "127.99.7.2")]
    assert place.known_hosts() == 2
    assert place.last_block() == BLOCK
    layout.prepare(place, BLOCK, 2)
    assert (place.client_file.read_text(), (tmp_path / "ca" / "ca.pem").read_bytes()) == (token, authority)
    secret = [place.client_file, tmp_path / "coordinator" / "state" / "bootstrap_token", tmp_path / "ca" / "ca.key"]
    assert {oct(file.stat().st_mode & 0o777) for file in secret} == {"0o600"}


def test_an_instance_that_lost_its_agent_is_ended(tmp_path: Path) -> None:
    """Only what belongs to this very fleet is killed."""
    sleeper = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"]
    processes = [
        subprocess.Popen(
            sleeper, stdout=subprocess.PIPE, env={"ROLLWAY_DRAIN_FILE": f"{tmp_path}/{fleet}/h1/run/i/x/drain"}
        )
        for fleet in ("mine", "mine-too", "other")
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.read(1)
        assert leftovers.end(tmp_path / "mine") == [processes[0].pid]
        assert processes[0].wait(DEADLINE_S) == -signal.SIGKILL
        assert [process.poll() for process in processes[1:]] == [None, None]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


STORES: Final = """
import os, signal, subprocess, sys
from agent.linux import fdstore, service
from agent.wire.sdnotify import Notice
given = subprocess.check_output(["ls", "-l", f"/proc/{os.getpid()}/fd"]).count(b"memfd:kept by ")
store = fdstore.FdStore(os.environ["NOTIFY_SOCKET"])
store.put("kept", os.memfd_create(f"kept by {sys.argv[1]}"))
print(given, flush=True)
service.notify(Notice(ready=True))
signal.sigwait({signal.SIGTERM})
"""
"""A child that says how many files it was given that one like it has kept, and has another one kept."""


class Pipes:
    """Our ends of a child's pipes, and what was said of it."""

    def __init__(self) -> None:
        self.lifeline, self.our_end = os.pipe()
        self.reader = -1
        self.lines: list[str] = []

    def child(self, folder: Path, *words: str) -> Child:
        child = Child("it", words, folder, lifeline=self.lifeline, say=self.lines.append)
        self.reader = child.output
        return child

    async def started(self) -> int:
        """The pid of a coordinator that says that it started."""
        text = b""
        while (found := re.search(rb'"event":"coordinator started".*"pid":(\d+)', text)) is None:
            await anyio.wait_readable(self.reader)
            text += os.read(self.reader, 1 << 16)
        return int(found[1])


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    """Pipes that are closed after the test."""
    pipes = Pipes()
    yield pipes
    for fd in (pipes.lifeline, pipes.our_end, pipes.reader):
        os.close(fd)


async def test_a_child_that_cannot_start_is_not_tried_again(tmp_path: Path, pipes: Pipes) -> None:
    """Wrong settings are told at once and not in a loop."""
    wrong = pipes.child(tmp_path, "coordinator", "run", "--config", str(tmp_path / "none.toml"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wrong.run)
        with anyio.fail_after(DEADLINE_S):
            assert not await wrong.is_ready()
            await wrong.ended.wait()
    assert wrong.ending == "ended with exit code 5"
    assert pipes.lines == []


async def test_a_killed_child_comes_back_until_it_is_told_to_end(tmp_path: Path, pipes: Pipes) -> None:
    """A coordinator that was killed is followed by a new one; at the end none is left."""
    place = layout.Layout(tmp_path)
    lock = net.lock_block(None, None)
    layout.prepare(place, lock.block, 1)
    killed = pipes.child(tmp_path, "coordinator", "run", "--config", str(place.coordinator_file))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(killed.run)
        with anyio.fail_after(DEADLINE_S):
            assert await killed.is_ready()
            first = await pipes.started()
            os.kill(first, signal.SIGKILL)
            second = await pipes.started()
            killed.stop()
            await killed.ended.wait()
    assert pipes.lines == ["it ended by SIGKILL; starts again in 0.2 s"]
    assert second != first
    for pid in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    lock.socket.close()


MARKED: Final = {
    "records": (b'{"ts":"1"}\n{"ts":"2"}\n', b'{"host":"h2","ts":"1"}\n{"host":"h2","ts":"2"}\n'),
    "what is no record": (b"Traceback:\n  {x}\n\n{}\n", b"Traceback:\n  {x}\n\n{}\n"),
    "an object within a record": (b'{"a":{"b":1}}\n', b'{"host":"h2","a":{"b":1}}\n'),
    "a last line that was cut off": (b'{"ts":"1"}\n{"ts', b'{"host":"h2","ts":"1"}\n{"host":"h2","ts'),
    "nothing": (b"", b""),
}


@pytest.mark.parametrize(("lines", "said"), MARKED.values(), ids=MARKED)
def test_each_record_that_up_shows_names_its_host(lines: bytes, said: bytes) -> None:
    """What several agents write to one output can be told apart; what is no JSON object is left as it is."""
    assert marked(lines, "h2") == said
    assert marked(lines, None) == lines


async def test_what_is_kept_for_one_child_is_given_to_no_other(tmp_path: Path, pipes: Pipes) -> None:
    """Else a socket that one agent has given up would go on listening in another, where nobody accepts."""
    children = [
        Child(name, ["-c", STORES, name], tmp_path, lifeline=pipes.lifeline, say=pipes.lines.append, program=PYTHON)
        for name in ("one", "two")
    ]
    async with anyio.create_task_group() as tasks:
        for child in children:
            tasks.start_soon(child.run)
            with anyio.fail_after(DEADLINE_S):
                assert await child.is_ready()
        for child in children:
            assert os.read(child.output, 10) == b"0\n"
            child.stop()
            await child.ended.wait()
    os.close(children[0].output)
    pipes.reader = children[1].output
