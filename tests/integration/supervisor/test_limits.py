"""Limits of instances: kept where the host can, else refused, or done without where the app allows it."""

import pytest
from msgspec import structs

from agent.model.process import Limits
from tests.integration.supervisor.conftest import House, script

pytestmark = pytest.mark.anyio
UP = "ulimit -n; exec sleep 600"


async def test_open_files_are_what_the_app_says(house: House) -> None:
    """Each process has the app's own limit, whatever the agent has."""
    key = house.launch(structs.replace(script(UP), limits=Limits(open_files=123)))
    await house.until(lambda: house.messages() == ["123"])
    await house.end(key)


async def test_what_cannot_be_kept_is_refused(house: House) -> None:
    """Without a cgroup an instance with a memory limit is not started, and it is said which, and what to do."""
    key = house.launch(structs.replace(script(UP), limits=Limits(memory_bytes=1 << 30, tasks=5, open_files=99)))
    detail = (await house.state("exec_failed")).detail
    assert "cannot keep limits.memory, tasks" in detail
    assert 'enforce = "best-effort"' in detail
    assert house.messages() == []
    await house.end(key)


async def test_what_an_app_can_do_without_is_told(house: House) -> None:
    """With best effort it runs with what there is, and its log says what there is not."""
    limits = Limits(cpu_milli=500, io_weight=10, open_files=99, best_effort=True)
    key = house.launch(structs.replace(script(UP), limits=limits))
    await house.until(lambda: house.messages() == ["99"])
    assert ("runs without limits that this host cannot keep", {"limits": "cpu io_weight"}) in house.told
    await house.end(key)
