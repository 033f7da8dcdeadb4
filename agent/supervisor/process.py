"""One process of ours from its start to its end, with its tree, its output and its record; instances and admin alike.

Rules: its end is the pidfd's word, never an end of output; after it the tree is killed, then the output read to its
end; a record is on disk before the process is. Whoever starts one kills and closes it.
"""

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup
from msgspec import Struct
from msgspec.structs import replace

from agent.linux import cgroup, clock, pidfd
from agent.linux.executable import ExecFailure
from agent.linux.killtree import Tree, end_tree
from agent.linux.pidfd import ExitStatus
from agent.linux.spawn import Launch, Rlimits, spawn
from agent.model.ids import ReleaseName
from agent.supervisor.folder import STREAMS, Folder
from agent.supervisor.launchable import InstanceKey, Listener, environment_of, sockets_named, words_of
from agent.supervisor.logs import Logs, Stream
from agent.supervisor.records import Record, Records
from agent.wire.logline import LogLines, Source

READ_OUT_S: Final = 5.0
"""So long the output of a process that is gone may wait for its reader."""


class Surroundings(Struct, frozen=True, kw_only=True):
    """What all processes of one agent share."""

    run_dir: Path
    records: Records
    logs: Logs
    jitter: Callable[[], float]
    """Draws in 0..1."""
    cgroup_root: Path | None = None
    rlimits: Rlimits = {}
    """What instances have in place of the agent's own limits."""


class Plan(Struct, frozen=True, kw_only=True):
    """What to start."""

    key: InstanceKey
    release: ReleaseName
    command: str
    shell: bool
    cwd: str
    config: Mapping[str, str]
    listeners: tuple[Listener, ...] = ()
    port: int | None = None
    tap: Callable[[bytes], None] = lambda _chunk: None
    """Sees the raw output as well."""


class Process:
    """Made by `start` only."""

    def __init__(
        self, around: Surroundings, plan: Plan, folder: Folder, tree: Tree, handle: int, *, recorded: bool
    ) -> None:
        self.tree: Final = tree
        self.recorded: Final = recorded
        self._folder = folder
        self._around = around
        self._key = plan.key
        self._handle = handle
        self._streams: list[Stream] = []
        self._writers: list[int] = []

    @property
    def pid(self) -> int:
        return self.tree.pid

    def read(self, tasks: TaskGroup, plan: Plan, readers: list[int], writers: list[int]) -> None:
        """Begin to read its output. Our own writing ends keep the FIFOs from ending when the process closes its."""
        self._writers = writers
        for name, reader in zip(STREAMS, readers, strict=True):
            lines = LogLines(source_of(plan, self.pid, name))
            stream = Stream(reader, lines, lambda records: self._around.logs.take(self._key, records), plan.tap)
            self._streams.append(stream)
            tasks.start_soon(stream.run)

    def signal(self, name: str) -> None:
        """To the main process alone; if it is gone, nothing."""
        pidfd.send_signal(self._handle, signal.Signals[name])

    async def show_notice(self) -> None:
        """Let the drain notice appear; a disk that is full takes the notice away from the app, not the drain."""
        with contextlib.suppress(OSError):
            await to_thread.run_sync(self._folder.show_notice)

    async def wait(self) -> ExitStatus:
        return await pidfd.wait_exit(self._handle)

    async def kill(self) -> tuple[int, ...]:
        """SIGKILL to the whole tree; the pids that are still there afterwards."""
        return await end_tree(self.tree)

    async def close(self) -> bool:
        """After its end: whether all its output was read and taken."""
        with anyio.move_on_after(READ_OUT_S) as patience:
            for stream in self._streams:
                await stream.finish()
        for stream in self._streams:
            stream.abandon()
        # Reaps it where nobody has waited for it.
        pidfd.collect(self._handle)
        for fd in (*self._writers, self._handle):
            os.close(fd)
        await to_thread.run_sync(self._leave)
        return not patience.cancelled_caught

    def _leave(self) -> None:
        if self.tree.cgroup is not None:
            with contextlib.suppress(OSError):  # an empty leaf that stays is used again
                cgroup.remove(self.tree.cgroup)
        self._folder.remove()
        self._around.records.remove(str(self._key))


def source_of(plan: Plan, pid: int, stream: str) -> Source:
    key = plan.key
    return Source(
        app=key.app,
        env=key.environment,
        release=plan.release,
        process=key.process,
        instance=key.name,
        pid=pid,
        stream=stream,
    )


async def start(around: Surroundings, plan: Plan, tasks: TaskGroup) -> Process | ExecFailure:
    """Start it, its output read by tasks of `tasks`; or why it cannot be started, whatever stood in the way."""
    readers: list[int] = []
    writers: list[int] = []
    folder = Folder(around.run_dir, str(plan.key))
    try:
        process = await to_thread.run_sync(_start, around, plan, folder, readers, writers)
    except OSError as error:
        process = ExecFailure(errno=error.errno or errno.EIO, what=error.filename or str(error))
    except ValueError as error:
        process = ExecFailure(errno=errno.EINVAL, what=f"cannot read the command {plan.command!r}: {error}")
    if isinstance(process, ExecFailure):
        for fd in (*readers, *writers):
            os.close(fd)
        return process
    process.read(tasks, plan, readers, writers)
    return process


def _start(
    around: Surroundings, plan: Plan, folder: Folder, readers: list[int], writers: list[int]
) -> Process | ExecFailure:
    folder.prepare()
    for name in STREAMS:
        reader, writer = folder.open_stream(name)
        readers.append(reader)
        writers.append(writer)
    leaf = cgroup.create(around.cgroup_root, str(plan.key)) if around.cgroup_root else None
    mark = f"ROLLWAY_DRAIN_FILE={folder.notice}"
    record = Record(
        key=str(plan.key),
        release=plan.release,
        boot_id=clock.boot_id(),
        mark=mark,
        cgroup=str(leaf) if leaf else None,
    )
    recorded = around.records.write(record)
    launched = spawn(_launch(around, plan, folder, writers, leaf))
    if isinstance(launched, ExecFailure):
        around.records.remove(record.key)
        folder.remove()
        return launched
    # Where only this one fails, the mark of the first finds the process all the same.
    around.records.write(replace(record, pid=launched.pid, start_time=launched.start_time))
    tree = Tree(pid=launched.pid, mark=mark, cgroup=leaf)
    return Process(around, plan, folder, tree, launched.pidfd, recorded=recorded)


def _launch(around: Surroundings, plan: Plan, folder: Folder, writers: list[int], leaf: Path | None) -> Launch:
    stdout, stderr = writers
    return Launch(
        argv=words_of(plan.command, shell=plan.shell, port=plan.port),
        env={
            **environment_of(plan.key, plan.release, plan.config, plan.port),
            **sockets_named(plan.key, len(plan.listeners)),
            "ROLLWAY_DRAIN_FILE": str(folder.notice),
            "TMPDIR": str(folder.tmp),
        },
        cwd=Path(plan.cwd),
        stdout=stdout,
        stderr=stderr,
        listen=tuple(listener.socket.fileno() for listener in plan.listeners),
        cgroup=leaf,
        rlimits=around.rlimits,
    )
