"""The main process of an instance: its end is the instance's end, and it gets the signals.

Rules: it is the one that was started until it, or another process of the instance, names another one by MAINPID=
(sd_notify(3)); believed is only who lives and is of the instance itself. Whoever was it before is reaped when it ends,
which then is nothing but the end of a process.
"""

import os
import select
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

import anyio
from anyio import to_thread
from msgspec.structs import replace

from agent.linux import orphans, pidfd, procfs
from agent.linux.killtree import Tree, pids
from agent.linux.pidfd import ExitStatus
from agent.linux.watch import ignore, watch
from agent.supervisor.notices import Notices


class MainProcess:
    """`tree` and `handle` are those of the process that it is to begin with; None where that cannot be watched."""

    def __init__(self, tree: Tree, handle: int | None) -> None:
        self.tree = tree
        self._handle = handle
        self._named: tuple[int, int, int] | None = None
        self._watch: anyio.CancelScope | None = None
        self._begin: Callable[[], object] | None = None
        self._one_at_a_time = threading.Lock()
        """Who looks for a process does so in a thread, which nobody can cancel."""
        self._over = False
        self._status: ExitStatus | None = None
        """How who has the handle ended, once that was asked."""
        self._kept: tuple[int, ...] = ()
        """Who was named, and is left to us when it ends; the number of one that ended may be in it still."""

    @property
    def pid(self) -> int:
        return self.tree.main[0] if self.tree.main else self.tree.pid

    def signal(self, name: str) -> None:
        """If it is gone, nothing."""
        if self._handle is not None:
            pidfd.send_signal(self._handle, signal.Signals[name])

    def when_over(self, begin: Callable[[], object]) -> None:
        """Have this called once at its end, whoever it is by then: `wait` then tells how it ended. No task waits."""
        if self._handle is None:
            begin()
            return
        self._begin = begin
        watch(self._handle, self._is_over)

    def _is_over(self) -> None:
        begin = self._begin
        self.ignore()
        if begin is not None:
            begin()

    def ignore(self) -> None:
        """Call nobody any more."""
        if self._begin is not None and self._handle is not None:
            ignore(self._handle)
        self._begin = None

    def status(self) -> ExitStatus | None:
        """How it has ended, where that can be told at once."""
        if self._status is None and self._handle is not None:
            self._status = pidfd.collect(self._handle)
        return self._status

    async def wait(self, notices: Notices | None) -> ExitStatus:
        """Wait for its end, whoever it is by then: what was said before an end is heard before it."""
        while True:
            with anyio.CancelScope() as self._watch:
                if self._status is None:
                    held = self._handle
                    self._status = await pidfd.wait_exit(held) if held is not None else pidfd.UNKNOWN_EXIT
                if notices is not None:
                    await notices.heard_out()
                return self._status

    async def named(self, pid: int) -> str:
        """Hold the process of this number, so that it can be followed; or why it cannot be the main one."""
        return await to_thread.run_sync(self._hold, pid)

    def _hold(self, pid: int) -> str:
        with self._one_at_a_time:
            return "it is over" if self._over else self._look(pid)

    def _look(self, pid: int) -> str:
        self._let_go()
        try:
            found = procfs.process(pid)
            handle = pidfd.open_pidfd(pid, found.start_time) if found and found.state not in "ZX" else None
            if found is None or handle is None:
                return "no process has that number"
            self._named = (pid, found.start_time, handle)
            if pid in pids(self.tree):
                orphans.keep(pid)
                self._kept = (*self._kept, pid)
                if not _has_ended(handle):
                    return ""
        except OSError as error:  # of a thread, for one, which is no process
            return f"it cannot be watched: {error.strerror}"
        self._let_go()
        return "it is not of this instance"

    def follow(self, pid: int) -> tuple[int, ...] | None:
        """That is the main process from now on: None where it is not held. Gives what there is to see off."""
        if self._named is None or self._named[0] != pid:
            return None
        _, start_time, handle = self._named
        before, begin = () if self._handle is None else (self._handle,), self._begin
        self.ignore()  # of the one before
        self._handle, self._named, self._status = handle, None, None
        if begin is not None:
            self.when_over(begin)
        self.tree = replace(self.tree, main=(pid, start_time) if pid != self.tree.pid else None)
        if self._watch is not None:
            self._watch.cancel()
        return before

    @property
    def handle(self) -> int | None:
        return self._handle

    def close(self) -> None:
        """After its end."""
        with self._one_at_a_time:
            self._over = True
            self._let_go()
        if self._handle is not None:
            self.status()  # reaps it where nobody has waited for it
            os.close(self._handle)
            self._handle = None
        for pid in set(self._kept):
            orphans.release(pid)

    def _let_go(self) -> None:
        if self._named is not None:
            os.close(self._named[2])
            self._named = None


async def see_off(handle: int) -> None:
    """Reap who is the main process no more, when it ends."""
    try:
        with suppress(OSError):  # without a descriptor to wait with it stays a zombie
            await pidfd.wait_exit(handle)
    finally:
        pidfd.collect(handle)
        os.close(handle)


def _has_ended(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))
