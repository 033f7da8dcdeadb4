"""What is due is called, in its order and not before its time, whatever others do."""

import asyncio

import anyio
import pytest

from agent.supervisor import timetable

pytestmark = pytest.mark.anyio


async def test_each_is_called_at_its_time_and_what_was_taken_back_never() -> None:
    """However many wait, in whatever order they came, and though one of them is taken back by another."""
    loop, began_s, seen = asyncio.get_running_loop(), asyncio.get_running_loop().time(), list[tuple[int, float]]()
    over = anyio.Event()

    def call(number: int) -> None:
        seen.append((number, loop.time()))
        if number == 10:
            places[11].cancel()
        if number == 199:
            over.set()

    places = {
        number: timetable.at(began_s + number / 2_000, lambda number=number: call(number))  # type: ignore[misc]
        for number in reversed(range(200))
    }
    places[50].cancel()
    places[50].cancel()
    with anyio.fail_after(10):
        await over.wait()
    assert [number for number, _ in seen] == [number for number in range(200) if number not in (11, 50)]
    assert all(at_s >= began_s + number / 2_000 - 0.001 for number, at_s in seen)  # libuv counts whole milliseconds


async def test_one_that_fails_keeps_no_other_from_being_called() -> None:
    """A failure is the loop's to tell; who comes after it is called."""
    loop, told, over = asyncio.get_running_loop(), list[str](), anyio.Event()
    loop.set_exception_handler(lambda _, context: told.append(str(context.get("exception"))))

    def fail() -> None:
        raise ValueError("it fails")

    try:
        timetable.after(0, fail)
        timetable.after(0, over.set)
        with anyio.fail_after(10):
            await over.wait()
    finally:
        loop.set_exception_handler(None)
    assert told == ["it fails"]
