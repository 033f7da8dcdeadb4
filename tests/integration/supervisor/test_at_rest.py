"""What an instance takes while nothing happens: hundreds of them rest nearly all the time."""

import asyncio

import anyio
import anyio.lowlevel
import pytest
from msgspec import structs

from agent.model.process import ExecCheck, Probe, Probes
from tests.integration.supervisor.conftest import DEADLINE_S, House, worker

pytestmark = pytest.mark.anyio
COUNT = 5


async def test_an_instance_that_rests_is_one_task(house: House) -> None:
    """However many probes it has: neither its end nor its next question nor its words are waited for by a task."""
    hourly = Probe(check=ExecCheck(command="true"), period_ms=3_600_000, timeout_ms=5_000)
    probed = structs.replace(worker("sleep 600"), probes=Probes(readiness=hourly, liveness=hourly))
    before = len(asyncio.all_tasks())
    for slot in range(1, COUNT + 1):
        house.launch(probed, slot)
    await house.until(lambda: [view.state for view in house.views()] == ["ready"] * COUNT)
    with anyio.fail_after(DEADLINE_S):
        while len(asyncio.all_tasks()) > before + COUNT:
            await anyio.lowlevel.checkpoint()
