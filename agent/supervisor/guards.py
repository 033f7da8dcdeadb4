"""Leases of singletons on this host, and a guard (`linux.guard`) beside each that has to end in time.

Rules: a lease is in its file, which the guard reads, before it counts here; one that cannot be written is not longer
than it was. Nothing of a singleton is started without a lease that lasts and a guard that lives. A guard outlives the
agent; the next one finds it by its number and start time, or starts another: two do no harm. One that was killed is
followed by another at once; as long as none can be started the lease counts for nothing, so that the instance is
stopped. Not covered: a guard that is killed while there is no agent, before the next one comes.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup
from msgspec.structs import replace

from agent.decisions.swap.lease import FOREVER_MS, keeps_ms
from agent.linux import atomic, cgroup, clock, guard, pidfd
from agent.linux.executable import ExecFailure
from agent.linux.spawn import Launch, spawn
from agent.model.ids import AppName, EnvironmentName, ProcessName, is_name
from agent.model.lease import LeaseName
from agent.model.process import ProcessType, StopPolicy
from agent.model.units import Instant, Milliseconds

CGROUP: Final = "guards"
"""Where the apps have cgroups. No instance has this name: theirs have dots."""
AGAIN_S: Final = 0.5
_RECORD: Final = ".guard"
_LEASE_BYTES_MAX: Final = 1_000

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Guards:
    """`changed` is called when a lease counts no more, or again, without anybody having said so here."""

    def __init__(self, run_dir: Path, cgroup_root: Path | None) -> None:
        self._folder: Final = run_dir / "leases"
        self._marks: Final = f"ROLLWAY_DRAIN_FILE={run_dir}/i/"
        self._cgroup_root = cgroup_root
        self._untils: dict[LeaseName, Instant] = {}
        self._watched: dict[LeaseName, int] = {}
        self._unguarded: set[LeaseName] = set()
        self._revoked: set[LeaseName] = set()
        self._one_starts, self._one_writes = anyio.Lock(), anyio.Lock()
        self.changed: Callable[[], None] = lambda: None
        self.tasks: TaskGroup
        """Whoever owns the guards' watches."""

    def load(self) -> None:
        """Read the leases that an earlier agent of this boot had. Blocking."""
        for path in self._folder.glob("*"):
            name = _parsed(path.name)
            if name is not None and (until_ms := _until_ms(path)) is not None:
                now = clock.now()
                self._untils[name] = replace(now.after(until_ms - now.boottime_ms), boottime_ms=until_ms)

    def names(self) -> tuple[LeaseName, ...]:
        """Of which there are leases, over or not."""
        return tuple(self._untils)

    def until(self, name: LeaseName) -> Instant | None:
        """By when nothing of it lives here any more; None: it must not."""
        return None if name in self._unguarded or name in self._revoked else self._untils.get(name)

    def bound(self, name: LeaseName) -> Instant | None:
        """By when its guard has ended it, whatever was said since."""
        return self._untils.get(name)

    async def renew(self, name: LeaseName, until: Instant, stop: StopPolicy) -> None:
        """A coordinator has answered. Raises OSError, and then the lease is as long as it was."""
        lease = guard.Lease(until.boottime_ms, stop.grace_ms, signal.Signals[stop.signal])
        async with self._one_writes:
            await to_thread.run_sync(self._write, name, guard.written(clock.boot_id(), lease))
            before, self._untils[name] = self._untils.get(name), until
            self._revoked.discard(name)
        if before is not None and before.boottime_ms >= FOREVER_MS:
            self.tasks.start_soon(self.keep, name)

    def revoke(self, name: LeaseName) -> None:
        """It counts no more, and its instance is to end; whatever of it lives is guarded on."""
        if name in self._untils:
            self._revoked.add(name)

    def is_revoked(self, name: LeaseName) -> bool:
        return name in self._revoked

    def give_back(self, name: LeaseName) -> None:
        """Nothing of it lives here, nor is anything started; its guard is ended: what else has its name lives on."""
        self.tasks.start_soon(self._remove_file, name)
        self._drop(name)

    async def leave(self, name: LeaseName) -> None:
        """The same, done when it returns: the agent ends."""
        self._drop(name)
        await self._remove_file(name)

    def _drop(self, name: LeaseName) -> None:
        del self._untils[name]
        self._revoked.discard(name)

    async def _remove_file(self, name: LeaseName) -> None:
        async with self._one_starts, self._one_writes:
            if name not in self._untils:
                if (handle := self._watched.pop(name, None)) is not None:
                    pidfd.send_signal(handle, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    await to_thread.run_sync(self._remove, name)

    async def admit(self, name: LeaseName, process: ProcessType) -> str:
        """Why nothing of it may be started now; empty when it may, and then a singleton is guarded."""
        if not process.singleton:
            return ""
        until = self.until(name)
        if until is None or keeps_ms(until, process.stop.grace_ms, clock.now()) <= 0:
            return "no lease"
        return await self.ensure(name)

    async def ensure(self, name: LeaseName) -> str:
        """Have a guard beside it, where its lease has an end; why there is none."""
        async with self._one_starts:
            until = self._untils.get(name)
            if name in self._watched or until is None or until.boottime_ms >= FOREVER_MS:
                return ""  # without an end there is nothing to guard
            try:
                handle = await to_thread.run_sync(self._find_or_start, name)
            except OSError as error:
                return f"its guard cannot be started: {error.strerror or error}"
            self._watched[name] = handle
            self.tasks.start_soon(self._watch, name, handle)
        return ""

    async def keep(self, name: LeaseName) -> None:
        """Have a guard beside what runs, however long none can be started: meanwhile its lease counts for nothing."""
        while why := await self.ensure(name):
            if name not in self._unguarded:
                self._unguarded.add(name)
                log.error("a singleton is not guarded: it is stopped", lease=str(name), reason=why)
                self.changed()
            await anyio.sleep(AGAIN_S)
        if name in self._unguarded:
            self._unguarded.discard(name)
            self.changed()

    async def _watch(self, name: LeaseName, handle: int) -> None:
        try:
            await pidfd.wait_exit(handle)
        finally:
            if is_mine := self._watched.get(name) == handle:
                del self._watched[name]
            os.close(handle)
        until = self._untils.get(name)
        if is_mine and until is not None and until.boottime_ms > clock.now().boottime_ms:
            log.warning("the guard of a singleton has ended: another is started", lease=str(name))
            await self.keep(name)

    def _find(self, name: LeaseName) -> int | None:
        """The guard that this or an earlier agent started, if it lives."""
        with contextlib.suppress(OSError, ValueError):
            pid, started = map(int, atomic.read(self._folder / f"{name}{_RECORD}", _LEASE_BYTES_MAX).split())
            return pidfd.open_pidfd(pid, started)
        return None

    def _find_or_start(self, name: LeaseName) -> int:
        if (found := self._find(name)) is not None:
            return found
        leaves = str(self._cgroup_root / f"{name}.") if self._cgroup_root is not None else ""
        words = (sys.executable, "-I", "-S", "-E", guard.__file__, str(self._folder / str(name)))
        silence = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            launched = spawn(
                Launch(
                    argv=(*words, f"{self._marks}{name}.", leaves),
                    env={"LC_ALL": "C.UTF-8"},  # without any it looks like one that is just being executed (`procfs`)
                    cwd=Path("/"),
                    stdout=silence,
                    stderr=2,
                    cgroup=cgroup.create(self._cgroup_root, CGROUP) if self._cgroup_root is not None else None,
                )
            )
        finally:
            os.close(silence)
        if isinstance(launched, ExecFailure):
            raise OSError(launched.errno, str(launched))
        with contextlib.suppress(OSError):  # without it the next agent starts another
            record = self._folder / f"{name}{_RECORD}"
            atomic.write_atomically(record, f"{launched.pid} {launched.start_time}\n".encode(), lasting=False)
        return launched.pidfd

    def _write(self, name: LeaseName, data: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write_atomically(self._folder / str(name), data, lasting=False)

    def _remove(self, name: LeaseName) -> None:
        if (handle := self._find(name)) is not None:
            pidfd.send_signal(handle, signal.SIGKILL)
            os.close(handle)
        for path in (self._folder / str(name), self._folder / f"{name}{_RECORD}"):
            path.unlink(missing_ok=True)


def _until_ms(path: Path) -> Milliseconds | None:
    with contextlib.suppress(OSError):
        lease = guard.parsed(atomic.read(path, _LEASE_BYTES_MAX), clock.boot_id())
        return lease.until_ms if lease is not None else None
    return None


def _parsed(text: str) -> LeaseName | None:
    words = text.split(".")
    if len(words) != 3 or not all(map(is_name, words)):  # noqa: PLR2004 - its parts
        return None
    app, environment, process = words
    return LeaseName(AppName(app), EnvironmentName(environment), ProcessName(process))
