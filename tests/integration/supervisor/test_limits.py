"""Limits of instances: kept where the host can, else refused, or done without where the app allows it."""

from pathlib import Path

import pytest
from msgspec import structs

from agent.linux import cgroup
from agent.linux.spawn import open_files_max
from agent.model.process import Limits, Sandbox
from tests.integration.supervisor.conftest import House, script

pytestmark = pytest.mark.anyio
MOST = open_files_max()
UP = "ulimit -n; exec sleep 600"


@pytest.mark.parametrize("number", [123, MOST])
async def test_open_files_are_what_the_app_says(house: House, number: int) -> None:
    """Each process has the app's own limit, whatever the agent has."""
    key = house.launch(structs.replace(script(UP), limits=Limits(open_files=number)))
    await house.until(lambda: house.messages() == [str(number)])
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
    """With best effort it runs with what there is, and its log says once what there is not, however often it starts."""
    limits = Limits(cpu_milli=500, io_weight=10, open_files=99, best_effort=True)
    key = house.launch(structs.replace(script("ulimit -n; exit 1"), limits=limits))
    await house.until(lambda: house.messages()[:3] == ["99"] * 3)
    told = [fields for text, fields in house.told if text == "runs without limits that this host cannot keep"]
    assert told == [{"limits": "cpu io_weight"}]
    await house.end(key)


NOT_HERE = {
    "memory that no cgroup keeps": (Limits(memory_bytes=1 << 30), Sandbox(), "cannot keep limits.memory:"),
    "one more file than may be had": (Limits(open_files=MOST + 1), Sandbox(), "cannot keep limits.open_files:"),
    "all files that may be had": (Limits(open_files=MOST), Sandbox(), ""),
    "a user that is not there": (Limits(), Sandbox(user="nobody-knows"), "this host has no user nobody-knows"),
    "best effort": (Limits(memory_bytes=1 << 30, best_effort=True), Sandbox(), ""),
}


@pytest.mark.parametrize(("limits", "sandbox", "said"), NOT_HERE.values(), ids=NOT_HERE)
async def test_what_cannot_start_here_is_known_before_anything_moves(
    limits: Limits, sandbox: Sandbox, said: str, tmp_path: Path
) -> None:
    """A host tells what it cannot keep of a release, with leaves for it and without, and leaves none behind."""
    process = structs.replace(script(UP), limits=limits, sandbox=sandbox)
    for root in {None, cgroup.detect()}:
        refused = await House(tmp_path, root).supervisor.refusal([script(UP), process])
        assert said in refused
        assert bool(refused) is bool(said)
        assert root is None or not list(root.glob("trial-*"))
