"""Probes that run a command beside an instance, in its identical surroundings: the exit code is the answer.

Rules: code 0 in time is well. A command is ended with all that it started when it exits, at its timeout, with its
instance, and by the next agent where its own was killed; of one kind of probe none begins before the last has ended.
What it writes is for the finding: the last of it is kept, and who writes without end waits in its own write. It is no
process of the instance: it has neither its sockets nor its voice. That we lack what it takes to run it is no finding.
"""

import contextlib
import errno
import os
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from anyio import to_thread
from msgspec.structs import replace

from agent.decisions.process import restart
from agent.decisions.process.state import Exited
from agent.linux import pidfd, procfs
from agent.linux.executable import ExecFailure
from agent.linux.killtree import Tree, end_command, end_tree
from agent.linux.pidfd import ExitStatus
from agent.linux.spawn import Launched
from agent.model.process import ProbeKind
from agent.supervisor.finding import Finding, one_line
from agent.supervisor.oneoff import Tail
from agent.supervisor.process import Plan, start_beside
from agent.supervisor.surroundings import Surroundings

CHUNK_BYTES: Final = 64 * 1024
PAUSE_S: Final = 0.01
"""Between two chunks of who writes faster than that."""
SHOWN_CHARACTERS: Final = 300
_LACKING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


class Commands:
    """Of one instance; `plan` gives what it was started by, and raises RollwayError where its config cannot be read."""

    def __init__(self, around: Surroundings, plan: Callable[[], Awaitable[Plan]]) -> None:
        self._around: Final = around
        self._plan: Final = plan
        self._turns: Final[dict[ProbeKind, anyio.Lock]] = {}
        self._survives: frozenset[ProbeKind] = frozenset()

    async def ask(self, kind: ProbeKind, command: str, timeout_ms: int) -> Finding | None:
        """How the command ends; None where we could not run it."""
        async with self._turns.setdefault(kind, anyio.Lock()):
            plan = await self._plan()
            tree = self._around.beside(plan.key, kind)
            if kind in self._survives and await end_tree(tree):
                return Finding(ok=False, detail="its last command survives SIGKILL")
            self._survives -= {kind}
            try:
                return await self._run(plan, kind, command, tree, timeout_ms)
            except ValueError as error:
                return Finding(ok=False, detail=f"cannot be read: {error}")
            except OSError as error:
                return None if procfs.is_shortage(error) else Finding(ok=False, detail=f"cannot be run: {error}")

    async def ended(self) -> None:
        """Wait until none of them lives, once nobody asks any more."""
        for turn in tuple(self._turns.values()):
            async with turn:
                pass

    async def _run(self, plan: Plan, kind: ProbeKind, command: str, tree: Tree, timeout_ms: int) -> Finding | None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with contextlib.closing(_Output(reader)) as output:
            try:
                with anyio.CancelScope(shield=True):
                    launched = await to_thread.run_sync(start_beside, self._around, plan, command, tree, writer)
            finally:
                os.close(writer)
            if isinstance(launched, ExecFailure):
                return None if launched.errno in _LACKING else Finding(ok=False, detail=f"cannot be run: {launched}")
            tree = replace(tree, pid=launched.pid, start_time=launched.start_time)
            try:
                status = await _end_of(launched, output, timeout_ms)
            finally:
                with anyio.CancelScope(shield=True):
                    if await end_command(launched.pidfd, tree):
                        self._survives |= {kind}
            return _finding(status, output.rest(), timeout_ms)


class _Output:
    """What a command writes: the last of it is kept."""

    def __init__(self, reader: int) -> None:
        os.set_blocking(reader, False)
        self._reader: Final = reader
        self._tail: Final = Tail()

    async def read(self) -> None:
        while True:
            await anyio.wait_readable(self._reader)
            chunk = os.read(self._reader, CHUNK_BYTES)
            if not chunk:
                return
            self._tail.add(chunk)
            if len(chunk) == CHUNK_BYTES:
                await anyio.sleep(PAUSE_S)

    def rest(self) -> str:
        """All that is kept, with what was not read yet: whoever still holds the pipe open is not waited for."""
        with contextlib.suppress(BlockingIOError):
            self._tail.add(os.read(self._reader, CHUNK_BYTES))
        return self._tail.text()

    def close(self) -> None:
        os.close(self._reader)


async def _end_of(launched: Launched, output: _Output, timeout_ms: int) -> ExitStatus | None:
    """How it ended; None where that was not in its time. Raises OSError."""
    status: ExitStatus | None = None
    failure: OSError | None = None  # which the group of tasks would hide in one of its own
    with anyio.move_on_after(timeout_ms / 1_000):
        async with anyio.create_task_group() as reading:
            reading.start_soon(output.read)
            try:
                status = await pidfd.wait_exit(launched.pidfd)
            except OSError as error:
                failure = error
            reading.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return status


def _finding(status: ExitStatus | None, written: str, timeout_ms: int) -> Finding:
    if status is not None and status.code == 0:
        return Finding(ok=True)
    how = f"did not end within {timeout_ms} ms"
    if status is not None:
        how = restart.describe(Exited(code=status.code, signal=status.signal, jitter=0))
    words = " ".join(one_line(written, len(written)).split())[-SHOWN_CHARACTERS:]
    return Finding(ok=False, detail=f"its command {how}{f': {words}' if words else ''}")
