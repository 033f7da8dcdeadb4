"""Hundreds of instances start a few at a time: in their order, without starving what runs, overtaken by a stop."""

from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event

import anyio
import pytest
from msgspec import structs

from agent.model.ids import ProcessName
from agent.model.process import HttpCheck, Probe, Probes
from agent.supervisor.launchable import InstanceKey
from tests.integration.supervisor.conftest import SHOP, TEST, House, Slot, app, worker

pytestmark = pytest.mark.anyio
HUNDREDS = 150
SLEEPER = worker("sleep 600")


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[tuple[House, Event]]:
    """A supervisor that starts two at once, on a host on which nothing can start before the event."""
    room = Event()
    house = House(tmp_path, launches=2, has_room=room.is_set)
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        yield house, room
        for view in house.views():
            house.supervisor.stop(InstanceKey(SHOP, TEST, view.process, view.slot), 0)
        await house.until(lambda: all(view.state == "stopped" for view in house.views()))
        tasks.cancel_scope.cancel()


async def test_what_waits_for_its_turn_is_stopped_without_being_started(narrow: tuple[House, Event]) -> None:
    """Whoever is stopped before its turn never runs; the others start in the order in which they were asked for."""
    house, room = narrow
    keys = [house.launch(SLEEPER, slot=slot) for slot in range(1, 7)]
    house.supervisor.stop(keys[3])
    house.supervisor.stop(keys[5])
    room.set()
    await house.until(lambda: [view.state for view in house.views()].count("ready") == 4)
    await house.until(lambda: [view.state for view in house.views()].count("stopped") == 2)
    assert [view.slot for view in house.views() if view.state == "stopped"] == [4, 6]
    assert house.texts().count("started") == 4
    assert "could not be started" not in house.texts()


async def test_while_hundreds_start_who_runs_stays_ready(house: House, slot: Slot) -> None:
    """A server that is asked each 100 ms is never late because others are started."""
    asked = Probe(check=HttpCheck(path="/"), period_ms=100, timeout_ms=1_000, failures=2)
    server = structs.replace(
        worker(app("server.py")), name=ProcessName("web"), probes=Probes(readiness=asked), listen=("127.0.0.1:1",)
    )
    house.launch(server, **slot.given)
    await house.state("ready")
    for number in range(1, HUNDREDS + 1):
        house.launch(SLEEPER, slot=number)
    await house.until(lambda: [view.state for view in house.views()].count("ready") == HUNDREDS + 1)
    (web,) = (view for view in house.views() if view.process == "web")
    assert (web.restarts, house.texts().count("unready")) == (0, 0)
