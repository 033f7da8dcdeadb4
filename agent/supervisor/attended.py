"""A command that somebody watches: begun with streams of theirs, ended with its main process, or when they leave.

Rules: it ends as every process of ours does, with its main process; what that has started has a moment to say its last
words, and is killed then. Whoever leaves is told to it by SIGHUP where it has a terminal, else by SIGTERM, and after
its grace everything is killed. It never outlives its agent: a next one ends what a killed one left, by the record.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from agent.linux import pidfd, procfs
from agent.linux.executable import ExecFailure
from agent.linux.pidfd import ExitStatus
from agent.supervisor.launchable import InstanceKey, WatchedCommand
from agent.supervisor.oneoff import begin, clear_away
from agent.supervisor.process import Plan, Process
from agent.supervisor.surroundings import Surroundings
from agent.supervisor.watched import Watched

GRACE_S: Final = 10.0
LAST_WORDS_S: Final = 0.5
"""So long what the main process left behind may go on to write: the end of a shell's pipe may be a moment later."""


class Attended:
    """One that runs. Made by `watching` only."""

    def __init__(self, key: InstanceKey, process: Process, streams: Watched, hang_up: signal.Signals) -> None:
        self.key: Final = key
        self.pid: Final = process.pid
        self.streams: Final = streams
        self.unkept: Final = process.unkept
        """Limits that it has to do without."""
        self.reason = ""
        """Why we end it, where we do."""
        self._process = process
        self._hang_up = hang_up
        self.ended = False

    async def wait(self) -> ExitStatus:
        """Wait for its end; then nothing of it lives, and what it wrote can be read to the end. Once."""
        status = await self._process.wait()
        self.ended = True
        with anyio.move_on_after(LAST_WORDS_S):
            await self.streams.silent.wait()
        await self._process.kill()
        self.streams.alone()
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send it to the main process and those of its group, as a terminal would."""
        if procfs.start_time(self.pid) == self._process.start_time:  # else the number may be another's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def end(self, reason: str) -> None:
        """Tell it to end, and after its grace end it; asked for again, and after its end, nothing happens."""
        if self.reason or self.ended or self._process.main.handle is None:
            return
        self.reason = reason
        self.signal(self._hang_up)
        self.signal(signal.SIGCONT)  # who was stopped hears nothing
        with anyio.move_on_after(GRACE_S) as grace:
            await pidfd.exited(self._process.main.handle)
        if grace.cancelled_caught:
            await self._process.kill()


@asynccontextmanager
async def watching(around: Surroundings, command: WatchedCommand, number: int) -> AsyncIterator[Attended | ExecFailure]:
    """Run it; it is ended at the end of the block, if it has not ended by then. `number` tells it from others."""
    streams = Watched(command.size, takes_input=command.takes_input)
    plan = Plan(
        key=InstanceKey(command.app, command.environment, command.process, number),
        release=command.release,
        command="",
        shell=False,
        words=command.words,
        cwd=command.cwd,
        config=command.config,
        limits=command.limits,
        sandbox=command.sandbox,
        watched=streams,
    )
    hang_up = signal.SIGTERM if command.size is None else signal.SIGHUP
    try:
        async with anyio.create_task_group() as tasks:
            process = await begin(around, plan, tasks)
            streams.given()
            if isinstance(process, ExecFailure):
                yield process
                return
            attended = Attended(plan.key, process, streams, hang_up)
            try:
                yield attended
            finally:
                with anyio.CancelScope(shield=True):
                    await attended.end("its agent ended")
                    await clear_away(around, plan.key, process)
    finally:
        streams.close()
        around.logs.end(plan.key)
