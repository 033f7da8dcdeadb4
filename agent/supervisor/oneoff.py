"""An admin process: run once, in the environment that the release's instances have, and ended with its main process.

Rules: output goes the way of all output, and its end is kept; the timeout and a cancellation end the whole tree. What
outlives the main process is killed, as after an instance.
"""

from typing import Final

import anyio
from anyio.abc import TaskGroup

from agent.linux import clock
from agent.linux.executable import ExecFailure
from agent.linux.pidfd import ExitStatus
from agent.supervisor.launchable import AdminCommand, AdminExit, InstanceKey
from agent.supervisor.process import Plan, Process, start
from agent.supervisor.records import Record
from agent.supervisor.surroundings import Surroundings

OUTPUT_BYTES_MAX: Final = 8 * 1024


class Tail:
    """The last of what was written."""

    def __init__(self) -> None:
        self._kept = b""

    def add(self, chunk: bytes) -> None:
        self._kept = (self._kept + chunk)[-OUTPUT_BYTES_MAX:]

    def text(self) -> str:
        return self._kept.decode(errors="replace")


async def run_once(around: Surroundings, command: AdminCommand, number: int) -> AdminExit:
    """Run it to its end. `number` tells it apart from others that run at the same time."""
    tail = Tail()
    plan = Plan(
        key=InstanceKey(command.app, command.environment, command.process, number),
        release=command.release,
        command=command.command,
        shell=command.shell,
        cwd=command.cwd,
        config=command.config,
        limits=command.limits,
        sandbox=command.sandbox,
        tap=tail.add,
    )
    status: ExitStatus | None = None
    async with anyio.create_task_group() as tasks:
        process = await begin(around, plan, tasks)
        if isinstance(process, ExecFailure):
            return AdminExit(failure=str(process))
        unkept = process.unkept
        try:
            with anyio.move_on_after(command.timeout_ms / 1_000):
                status = await process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await clear_away(around, plan.key, process)
    around.logs.end(plan.key)
    if status is None:
        return AdminExit(timed_out=True, output=tail.text(), unkept=unkept)
    return AdminExit(exit_code=status.code, signal=status.signal, output=tail.text(), unkept=unkept)


async def begin(around: Surroundings, plan: Plan, tasks: TaskGroup) -> Process | ExecFailure:
    """Start it, known to a next agent from before it begins until it is cleared away."""
    with anyio.CancelScope(shield=True):
        await _record(around, plan.key)
        process = await start(around, plan)
        if isinstance(process, ExecFailure):
            await around.do(0, around.records.remove, plan.key)
        else:
            await _record(around, plan.key, process)
            process.read(tasks, plan.release, plan.tap)
    return process


async def _record(around: Surroundings, key: InstanceKey, process: Process | None = None) -> None:
    """So that a next agent ends what this one cannot."""
    tree = process.tree if process else around.tree(key)
    record = Record(
        key=key,
        boot_id=clock.boot_id(),
        mark=tree.mark,
        pid=process.pid if process else None,
        start_time=process.start_time if process else None,
        cgroup=tree.cgroup,
    )
    await around.do(0, around.records.write, record)


async def clear_away(around: Surroundings, key: InstanceKey, process: Process) -> None:
    """End what is left of it, and everything that was made for it."""
    await process.kill()
    await process.close()
    await around.do(0, around.records.remove, key)
