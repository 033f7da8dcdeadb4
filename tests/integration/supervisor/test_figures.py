"""What instances use is told when somebody asks, for the whole tree, with cgroup v2 and without."""

import anyio
import pytest

from agent.linux import clock
from agent.model.figures import Figures
from agent.supervisor import gauge
from tests.integration.supervisor.conftest import SHOP, TEST, House, script

pytestmark = pytest.mark.anyio
MIB = 1 << 20
# A shell that waits for a child with threads, memory and files: none of them is the main process's own.
TREE = """python3 -c '
import threading, time
held = b"x" * (96 << 20)
files = [open("/dev/null") for _ in range(40)]
for _ in range(5): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
while time.process_time() < 0.3: pass
print("up", flush=True); time.sleep(600)
' & wait"""


async def looked(house: House) -> Figures:
    (found,) = await house.supervisor.figures(SHOP, TEST)
    return found.figures


async def test_the_whole_tree_counts(house: House) -> None:
    """Processor time, memory, threads and open files of an instance are those of all its processes."""
    key = house.launch(script(TREE))
    await house.until(lambda: "up" in house.messages())
    found = await looked(house)
    assert 250 <= found.cpu_ms < 5_000  # counted in ticks of 10 ms
    assert found.cpu_percent is not None
    assert found.cpu_percent > 1
    assert found.memory_bytes is not None
    assert 96 * MIB <= found.memory_bytes < 192 * MIB
    assert found.memory_kind == "pss"
    assert found.threads == 7
    assert found.open_files is not None
    assert 46 <= found.open_files < 60
    await house.end(key)
    assert await house.supervisor.figures() == ()


async def test_the_same_by_its_cgroup(in_leaves: House) -> None:
    """With a leaf its processes are known without a walk, and its time holds that of who is gone."""
    house = in_leaves
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    key = house.launch(script(f"python3 -c '{burn}'; sh -c 'sleep 600 & echo up; wait'; true"))
    await house.until(lambda: "up" in house.messages())
    found = await looked(house)
    assert found.cpu_ms >= 200
    assert found.threads == 3
    assert found.memory_bytes is not None
    assert found.memory_kind in ("cgroup", "pss")
    await house.end(key)


async def test_neighbours_are_told_apart(house: House) -> None:
    """Each instance has its own figures, though their processes are alike."""
    for slot, count in ((1, 10), (2, 30)):
        held = f'held = [open("/dev/null") for _ in range({count})]; print({count}, flush=True)'
        command = f"exec python3 -c 'import time; {held}; time.sleep(600)'"
        house.launch(script(command), slot=slot)
    await house.until(lambda: {10, 30} <= {int(str(message)) for message in house.messages()})
    found = {one.slot: one.figures for one in await house.supervisor.figures()}
    assert None not in (found[1].open_files, found[2].open_files)
    assert (found[2].open_files or 0) - (found[1].open_files or 0) == 20


async def test_a_share_of_a_processor_is_since_the_last_look(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks again at once gets the same; later, what was used since."""
    monkeypatch.setattr(gauge, "FRESH_MS", 300)
    key = house.launch(script("trap : USR1; echo up; while :; do :; done"))
    await house.until(lambda: "up" in house.messages())
    first = await looked(house)
    assert await looked(house) == first
    since_ms = clock.now().boottime_ms
    with anyio.fail_after(10):
        while (second := await looked(house)) == first:
            await anyio.lowlevel.checkpoint()
    assert second.cpu_ms > first.cpu_ms
    assert second.cpu_percent is not None
    assert 10 < second.cpu_percent < 130
    assert clock.now().boottime_ms - since_ms >= 200
    await house.end(key)
