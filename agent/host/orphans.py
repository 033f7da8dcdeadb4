"""Drains by the runtime records, in the place of an agent that is dead: what it would do for each instance, itself.

Rules: the caller holds the state folder's lock, so no agent starts meanwhile. Each instance is drained by the decisions
that its agent would have taken (`decisions.process`): notice, linger, the stop signal once, grace, SIGKILL to the tree;
one whose drain had begun goes on from there. Records are read defensively: of whatever age, only what is needed; one
that nobody can read is left alone, and a state that is not of this age is taken for that of one that runs. Nobody
watches connections or takes instances out of the program here: listening ones have their whole linger.
"""

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import anyio
import msgspec
from anyio import to_thread
from msgspec import Struct

from agent.decisions.process.instance import step
from agent.decisions.process.state import (
    Action,
    Adopted,
    CloseProcess,
    Event,
    Exited,
    InstanceMachine,
    KillTree,
    ShowNotice,
    Signal,
    StopAsked,
    Terms,
    Tick,
    Wake,
)
from agent.decisions.swap.slots import leave_first
from agent.linux import atomic, cgroup, clock, pidfd
from agent.linux.killtree import NO_PID, Tree, end_tree
from agent.model.ids import ProcessName
from agent.model.process import StopPolicy
from agent.model.units import Instant, Milliseconds
from agent.supervisor.folder import Folder

_MARK: Final = "ROLLWAY_DRAIN_FILE="
RECORD_BYTES_MAX: Final = 1 << 20

Tell = Callable[[tuple[str, ...]], None]


class _Type(Struct, frozen=True):
    after: tuple[ProcessName, ...] = ()
    stop: StopPolicy = StopPolicy()
    listen: tuple[str, ...] = ()


class _Kept(Struct, frozen=True):
    type: _Type = _Type()
    linger_ms: Milliseconds | None = None
    machine: msgspec.Raw = msgspec.Raw()
    signalled: bool = True


class _Record(Struct, frozen=True):
    boot_id: str
    mark: str
    pid: int | None = None
    start_time: int | None = None
    main_pid: int | None = None
    main_start_time: int | None = None
    cgroup: str | None = None
    instance: _Kept | None = None


class Orphan(Struct, frozen=True):
    """One process tree that a record names."""

    record: Path
    tree: Tree
    pid: int
    """Of its main process."""
    start_time: int
    machine: InstanceMachine
    signalled: bool
    linger_ms: Milliseconds | None
    after: tuple[ProcessName, ...] = ()

    @property
    def name(self) -> str:
        return self.record.stem

    @property
    def app(self) -> str:
        """App and environment."""
        return self.name.rsplit(".", 2)[0]

    @property
    def process(self) -> ProcessName:
        return ProcessName(self.name.rpartition(".")[0].rpartition(".")[2])


def find(run_dir: Path) -> list[Orphan]:
    """What the records of this boot name, whether it still lives or not. Blocking."""
    return list(_find(run_dir / "records"))


async def drain(orphans: Sequence[Orphan], run_dir: Path, tell: Tell) -> tuple[str, ...]:
    """Drain all apps at once, each in its order, telling what is left; the names of what outlived even SIGKILL."""
    left = list(orphans)
    survived: list[str] = []

    async def one(orphan: Orphan) -> None:
        if await _Drain(orphan, run_dir).run():
            survived.append(orphan.name)
        left.remove(orphan)
        tell(tuple(one.name for one in left))

    async def app(name: str) -> None:
        while own := [orphan for orphan in left if orphan.app == name]:
            first = leave_first({orphan.process: orphan.after for orphan in own})
            async with anyio.create_task_group() as turn:
                for orphan in own:
                    if orphan.process in first:
                        turn.start_soon(one, orphan)

    tell(tuple(orphan.name for orphan in left))
    async with anyio.create_task_group() as tasks:
        for name in sorted({orphan.app for orphan in orphans}):
            tasks.start_soon(app, name)
    return tuple(survived)


class _Drain:
    """One orphan, from the wish to stop it to its end."""

    def __init__(self, orphan: Orphan, run_dir: Path) -> None:
        self._orphan = orphan
        self._folder = Folder(run_dir, orphan.name)
        self._survivors: tuple[int, ...] = ()

    async def run(self) -> tuple[int, ...]:
        tree, handle = self._orphan.tree, None
        if self._orphan.pid != NO_PID:
            handle = pidfd.open_pidfd(self._orphan.pid, self._orphan.start_time)
        if handle is None:  # its main process is gone: what it left behind has nobody to tell it to end
            self._survivors = await end_tree(tree)
        else:
            try:
                await self._drain(handle)
            finally:
                os.close(handle)
        if not self._survivors:
            await to_thread.run_sync(self._clear_away)
        return self._survivors

    async def _drain(self, handle: int) -> None:
        orphan, machine, wake = self._orphan, self._orphan.machine, None
        events = deque[Event](
            [Adopted(pid=orphan.pid, signalled=orphan.signalled), StopAsked(linger_ms=orphan.linger_ms)]
        )
        while machine.state != "stopped":
            event = events.popleft() if events else await _next(handle, wake)
            decision = step(machine, event, clock.now())
            machine, wake = decision.state, None
            for action in decision.actions:
                if isinstance(action, Wake):
                    wake = action.at
                else:
                    await self._perform(action, handle)

    async def _perform(self, action: Action, handle: int) -> None:
        match action:
            case ShowNotice():
                with contextlib.suppress(OSError):
                    await to_thread.run_sync(self._folder.show_notice)
            case Signal(name=name):
                pidfd.send_signal(handle, signal.Signals[name])
            case KillTree():
                self._survivors = await end_tree(self._orphan.tree)
            case CloseProcess() | _:
                """Its probes, its output and the agent's log ended with its agent."""

    def _clear_away(self) -> None:
        leaf = self._orphan.tree.cgroup
        with contextlib.suppress(OSError):
            if leaf is not None:
                cgroup.remove(leaf)
        self._folder.remove()
        self._orphan.record.unlink(missing_ok=True)


async def _next(handle: int, wake: Instant | None) -> Tick | Exited:
    left_s = None if wake is None else max(0, wake.boottime_ms - clock.now().boottime_ms) / 1000
    with anyio.move_on_after(left_s):
        await pidfd.exited(handle)
        return Exited(code=None, signal=None, jitter=0)
    return Tick()


def _find(folder: Path) -> Iterator[Orphan]:
    for path in sorted(folder.glob("*.json")):
        try:
            record = msgspec.json.decode(atomic.read(path, RECORD_BYTES_MAX), type=_Record)
        except (OSError, msgspec.DecodeError, UnicodeError, RecursionError):
            continue
        if record.boot_id == clock.boot_id() and record.mark.startswith(_MARK):
            yield _orphan(path, record)


def _orphan(path: Path, record: _Record) -> Orphan:
    kept = record.instance or _Kept()
    pid = record.pid if record.pid is not None and record.start_time is not None else NO_PID
    main, main_start_time = pid, record.start_time or 0
    if record.main_pid is not None and record.main_start_time is not None:
        main, main_start_time = record.main_pid, record.main_start_time
    return Orphan(
        record=path,
        tree=Tree(
            pid=pid,
            start_time=record.start_time,
            mark=record.mark,
            cgroup=record.cgroup or None,
            main=(main, main_start_time) if main != pid else None,
        ),
        pid=main,
        start_time=main_start_time,
        machine=_machine(kept, main),
        signalled=kept.signalled,
        linger_ms=kept.linger_ms,
        after=kept.type.after,
    )


def _machine(kept: _Kept, pid: int) -> InstanceMachine:
    """What its agent had decided about the process; of one that this code cannot read: it runs."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
        stored = msgspec.json.decode(kept.machine, type=InstanceMachine)
        if stored.pid == pid:
            return stored
    now, terms = clock.now(), Terms(stop=kept.type.stop, listens=bool(kept.type.listen))
    return InstanceMachine(
        terms=terms, state="ready", since=now, launched=now, launch=1, pid=pid, started=True, ready=True
    )
