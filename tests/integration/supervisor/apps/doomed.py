"""An agent with one instance, whose liveness is asked by a command that hangs: to be killed in the middle of that."""

import sys
from pathlib import Path

import anyio

from tests.integration.supervisor.conftest import House
from tests.integration.supervisor.test_commands import hanging


async def main(folder: Path, in_cgroup: str) -> None:
    house = House(folder, cgroup_root=Path(in_cgroup) if in_cgroup else None)
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        house.launch(hanging(folder / "notes"))
        await anyio.sleep_forever()


anyio.run(main, Path(sys.argv[1]), sys.argv[2])
