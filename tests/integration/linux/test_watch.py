"""What can be read is told of, to whoever watches it and to nobody else, on both loops."""

import os
from collections.abc import Iterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from agent.linux import watch
from agent.linux.watch import AT_ONCE, ignore, readable

pytestmark = pytest.mark.anyio
Pipes = list[tuple[int, int]]


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    """More than are told of at once: the end that is read, and the other one."""
    made = [os.pipe() for _ in range(AT_ONCE + 6)]
    yield made
    for pair in made:
        for fd in pair:
            os.close(fd)


async def test_each_is_told_of_as_long_as_there_is_something(pipes: Pipes) -> None:
    """However many there are, each is read once for each byte, and then nobody is called any more."""
    seen: list[int] = []

    def read(fd: int) -> None:
        os.read(fd, 1)
        seen.append(fd)

    for reading, writing in pipes:
        watch.watch(reading, lambda fd=reading: read(fd))  # type: ignore[misc]
        os.write(writing, b"ab")
    with anyio.fail_after(10):
        while len(seen) < 2 * len(pipes):
            await checkpoint()
    for _ in range(10):
        await checkpoint()
    assert sorted(seen) == sorted(2 * [reading for reading, _ in pipes])
    for reading, _ in pipes:
        ignore(reading)


async def test_who_is_ignored_by_another_in_the_same_moment_is_not_called(pipes: Pipes) -> None:
    """Two can be read at once, and the first to be called lets the second go, whose number somebody else gets."""
    (one, to_one), (two, to_two) = pipes[:2]
    called: list[int] = []

    def first(fd: int, other: int) -> None:
        called.append(fd)
        ignore(fd)
        ignore(other)
        watch.watch(other, lambda: called.append(-1))
        ignore(other)

    watch.watch(one, lambda: first(one, two))
    watch.watch(two, lambda: first(two, one))
    os.write(to_one, b"x")
    os.write(to_two, b"x")
    with anyio.fail_after(10):
        while not called:
            await checkpoint()
    for _ in range(10):
        await checkpoint()
    assert len(called) == 1
    assert called[0] in (one, two)


async def test_waiting_ends_in_time(pipes: Pipes) -> None:
    """With something to read or without, and somebody else may wait afterwards."""
    reading, writing = pipes[0]
    assert not await readable(reading, 0.01)
    os.write(writing, b"x")
    assert await readable(reading, 10)
    with anyio.move_on_after(0.01) as given_up:
        os.read(reading, 1)
        await readable(reading)
    assert given_up.cancelled_caught
    os.write(writing, b"x")
    assert await readable(reading)
