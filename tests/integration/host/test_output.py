"""What a role writes to its standard output: nothing lost, nothing blocked, whatever is on the other end."""

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import structlog

from agent.telemetry import events
from agent.telemetry.output import Stdout

pytestmark = pytest.mark.anyio

LINES = [b'{"n":%d,"message":"%s"}\n' % (n, b"x" * 500) for n in range(10_000)]
"""More than a journal, what leads out of it and a pipe can hold together."""
DEADLINE_S = 20


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers
    structlog.reset_defaults()


def ends(kind: str, folder: Path) -> tuple[int, int]:
    """A reading and a writing end of `kind`."""
    if kind == "pipe":
        return os.pipe()
    if kind == "socket":
        ours, theirs = socket.socketpair()
        return ours.detach(), theirs.detach()
    path = folder / "log"
    writing = os.open(path, os.O_WRONLY | os.O_CREAT)
    return os.open(path, os.O_RDONLY), writing


async def read_all(fd: int, size: int) -> bytes:
    """`size` bytes from `fd`, slowly enough that the writer has to wait for us."""
    found = bytearray()
    while len(found) < size:
        found += await anyio.to_thread.run_sync(os.read, fd, 16_384)
    return bytes(found)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_a_slow_reader_slows_the_writer_and_gets_every_line(kind: str, tmp_path: Path) -> None:
    """Lines given while nobody reads wait outside a small bound, and all arrive in order once somebody does."""
    reading, writing = ends(kind, tmp_path)
    stdout = Stdout(writing)
    given = 0

    async def give() -> None:
        nonlocal given
        for line in LINES:
            await stdout.write(line)
            given += 1

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(stdout.run)
            tasks.start_soon(give)
            await anyio.wait_all_tasks_blocked()
            assert 0 < given < len(LINES)
            whole = b"".join(LINES)
            assert await read_all(reading, len(whole)) == whole
            tasks.cancel_scope.cancel()
    assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(reading)
    os.close(writing)


async def test_a_file_gets_every_line(tmp_path: Path) -> None:
    """A regular file, which no loop can wait for, gets all lines; flush tells when."""
    reading, writing = ends("file", tmp_path)
    stdout = Stdout(writing)
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(stdout.run)
            for line in LINES:
                await stdout.write(line)
            await stdout.flush()
            tasks.cancel_scope.cancel()
    assert (tmp_path / "log").read_bytes() == b"".join(LINES)
    os.close(reading)
    os.close(writing)


async def test_events_that_find_no_room_are_counted() -> None:
    """Own events never wait; those that were lost while nobody read are told in one record afterwards."""
    reading, writing = os.pipe()
    stdout = Stdout(writing)
    for _ in range(100):
        stdout.put(b'{"event":"%s"}\n' % (b"e" * 20_000))
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(stdout.run)
            await stdout.flush()
            tasks.cancel_scope.cancel()
    *kept, gap = os.read(reading, 4 << 20).splitlines()
    assert json.loads(gap) == {"level": "warning", "event": "log records were lost", "lost": 100 - len(kept)}
    assert 0 < len(kept) < 100
    os.close(reading)
    os.close(writing)


async def test_what_a_thread_tells_while_the_reader_is_slow_comes_once_and_in_order(tmp_path: Path) -> None:
    """A thread may tell something at any moment, as where the service manager does not answer."""
    reading, writing = ends("pipe", tmp_path)
    stdout, told = Stdout(writing), LINES[:1_500]  # more than the pipe holds, and less than the journal

    def tell() -> None:
        for line in told:
            stdout.put(line)

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(stdout.run)
            await anyio.to_thread.run_sync(tell)
            whole = b"".join(told)
            assert await read_all(reading, len(whole)) == whole
            tasks.cancel_scope.cancel()
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_a_reader_that_has_gone_away_stops_nothing(kind: str, tmp_path: Path) -> None:
    """With the reading end closed, writing goes on into nowhere instead of raising or waiting for ever."""
    reading, writing = ends(kind, tmp_path)
    stdout = Stdout(writing)
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(stdout.run)
            os.close(reading)
            for line in LINES:
                await stdout.write(line)
            await stdout.flush()
            tasks.cancel_scope.cancel()
    os.close(writing)


def test_an_event_and_a_library_s_log_call_are_one_json_line_each() -> None:
    """Both carry `ts`, `level` and `event`; a traceback is a field of its line, not lines of its own."""
    lines: list[bytes] = []
    events.configure(lines.append)
    structlog.get_logger().info("swap", app="shop", path=Path("/x"))
    try:
        int("broken\nin two lines")
    except ValueError:
        logging.getLogger("aiohttp").exception("it failed")
    own, library = (json.loads(line) for line in lines)
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines)
    assert {**own, "ts": ""} == {"ts": "", "level": "info", "event": "swap", "app": "shop", "path": "/x"}
    assert (library["level"], library["event"], library["logger"]) == ("error", "it failed", "aiohttp")
    assert "ValueError: invalid literal" in library["exception"]
