"""What comes back from the service manager is not what it was: an agent starts all the same, and so does the next."""

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import pytest

from agent.linux.fdstore import Inherited
from agent.supervisor.launchable import InstanceKey
from tests.integration.supervisor.conftest import House, script
from tests.integration.supervisor.keeper import Keeper
from tests.integration.supervisor.test_adopt import an_agent

pytestmark = pytest.mark.anyio
WRITES: Final = "while :; do echo line; sleep 0.02; done"


def has(words: dict[int, int]) -> Callable[[int], object]:
    """Writes these words, by their number, into the head of a file."""

    def write(fd: int) -> None:
        for number, word in words.items():
            os.pwrite(fd, struct.pack("=Q", word), 8 * number)

    return write


OTHERS: dict[str, Callable[[], int]] = {
    "a socket": lambda: socket.socket().detach(),
    "a device": lambda: os.open("/dev/null", os.O_RDWR),
    "a folder": lambda: os.open("/", os.O_RDONLY),
    "a file": lambda: os.memfd_create("other"),
    "a process": lambda: os.pidfd_open(os.getpid()),
}
SPOILT: dict[str, tuple[str, Callable[[int], object]]] = {
    "a journal that ends beyond its file": ("journal", has({8: 1 << 40, 64: 1 << 40})),
    "a journal that never ends": ("journal", has({8: 2**64 - 1, 64: 2**64 - 1})),
    "a journal that is handed over beyond its end": ("journal", has({2: 1 << 40})),
    "a journal whose turn began nowhere": ("journal", has({3: 1 << 63})),
    "a journal with a third commit": ("journal", has({4: 2})),
    "a journal with an endless note": ("journal", has({9: 1 << 40, 65: 1 << 40})),
    "more taken than there can be": ("stdout-taken", lambda fd: os.lseek(fd, 1 << 40, os.SEEK_SET)),
    "less taken than was used": ("stdout-taken", lambda fd: os.lseek(fd, 0, os.SEEK_SET)),
    "what was taken is moved to nowhere": ("stdout-taken", has({1: 1, 2: 1 << 40})),
    "what was taken is gone": ("stdout-taken", has(dict.fromkeys(range(64), 0))),
}


@pytest.fixture
def house(tmp_path: Path, keeper: Keeper) -> House:
    return House(tmp_path, store=keeper.store)


async def left_writing(house: House) -> InstanceKey:
    """What an agent leaves whose instance has written."""
    async with an_agent(house):
        key = house.launch(script(WRITES))
        await house.state("ready")
        await house.until(lambda: bool(house.messages()))
    return key


async def goes_on(house: House, keeper: Keeper, inherited: Inherited, pid: int | None) -> None:
    """The instance as it was, its output too; and the agent after that has everything again."""
    for came_back in (inherited, None):
        with anyio.fail_after(20):
            async with an_agent(house, came_back or keeper.inherited()):
                seen = len(house.messages())
                await house.until(lambda seen=seen: len(house.messages()) > seen + 3)  # type: ignore[misc]
                assert (house.view().pid, house.view().state) == (pid, "ready")
    assert "descriptors did not come back" not in house.texts()


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("name", ["journal", "pidfd", "stdout-taken", "ways 0", "ways 1", "ways 2"])
async def test_something_else_under_a_name(house: House, keeper: Keeper, name: str, other: Callable[[], int]) -> None:
    """It is closed, and what it stands for is found or made anew."""
    key = await left_writing(house)
    pid, back = house.view().pid, keeper.inherited()
    kept = {one: back.take_all(one) for one in back.names()}
    strange, (name, _, place) = other(), name.partition(" ")
    os.dup2(strange, kept[f"{key}/{name}"][int(place or 0)])
    os.close(strange)
    await goes_on(house, keeper, Inherited(kept), pid)
    async with an_agent(house, keeper.inherited()):
        await house.end(key)


@pytest.mark.parametrize(("name", "spoil"), SPOILT.values(), ids=SPOILT.keys())
async def test_a_file_in_memory_that_somebody_wrote_into(
    house: House, keeper: Keeper, name: str, spoil: Callable[[int], object]
) -> None:
    """Whoever has the agent's user id can do that: lines may be lost, the agent is not."""
    key = await left_writing(house)
    pid, back = house.view().pid, keeper.inherited()
    kept = {one: back.take_all(one) for one in back.names()}
    spoil(kept[f"{key}/{name}"][0])
    await goes_on(house, keeper, Inherited(kept), pid)
    async with an_agent(house, keeper.inherited()):
        await house.end(key)


async def test_of_two_under_one_name_the_other_one_is_closed_and_what_is_in_use_stays_kept(keeper: Keeper) -> None:
    """Whoever takes one up relies on it: only a name of which nobody has taken anything is forgotten."""
    for name in ("used", "used", "unused"):
        keeper.store.put(name, 0)
    back = keeper.inherited()
    taken = back.take("used")
    assert taken is not None
    back.drop_rest(keeper.store)
    assert back.names() == []
    assert keeper.names() == ["used"]
    os.close(taken)
