"""Our children, and those that become ours: what a dead process leaves behind comes to the nearest subreaper above it.

Rules: a child that we started is reaped by whoever waits for it, and only after it is written off here; any other that
came to us, and that nobody keeps, is reaped by the thread of `reap_for_ever`, as init would do it: a zombie counts
against the tasks of its cgroup until then. The thread sleeps in waitid(2), because no loop may have SIGCHLD for itself
beside uvloop. What a library of ours started and waits for is in our own session, and no instance is.
"""

import ctypes
import os
import resource
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from agent.linux import procfs

_PR_SET_CHILD_SUBREAPER: Final = 36
_AGAIN_S: Final = 0.02
_AGAIN_S_MAX: Final = 1.0

_libc: Final = ctypes.CDLL(None, use_errno=True)
_lock: Final = threading.Lock()
_started: Final = set[int]()
_has_children: Final = threading.Event()


def start(spawn: Callable[[], int]) -> int:
    """Start a child by `spawn`, which gives its number: whoever waits for it reaps it."""
    with _lock:  # one that ends at once must not be taken for an orphan
        pid = spawn()
        _started.add(pid)
    _has_children.set()
    return pid


def keep(pid: int) -> None:
    """Leave an orphan, should it be one, to somebody who waits for it, until `release`."""
    with _lock:
        _started.add(pid)


def release(pid: int) -> None:
    with _lock:
        _started.discard(pid)


def reap(pid: int) -> tuple[int, int, resource.struct_rusage]:
    """Reap a child that has ended: number, status, usage, as os.wait4 gives them. Raises ChildProcessError."""
    with _lock:  # else its number could be another child's before it is written off
        ended = os.wait4(pid, os.WNOHANG)
        _started.discard(pid)
    return ended


def become_subreaper() -> None:
    """Let orphans among our descendants come to us. Raises OSError."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def reap_for_ever() -> None:
    """Reap every orphan that comes to us, in a thread that ends with the process."""
    threading.Thread(target=_reap_orphans, name="orphans", daemon=True).start()


def _reap_orphans() -> None:
    own_session, pause_s, last = os.getsid(0), _AGAIN_S, 0
    while True:
        try:
            seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            _has_children.wait()
            _has_children.clear()
            continue
        if seen is None:
            continue
        # Whoever waits for it does so in a moment, and is not to be disturbed then: nobody waits for an orphan. Until
        # it is reaped waitid would tell of no other.
        pause_s, last = min(pause_s * 2, _AGAIN_S_MAX) if seen.si_pid == last else _AGAIN_S, seen.si_pid
        threading.Event().wait(pause_s)
        _reap_orphan(seen.si_pid, own_session)


def _reap_orphan(pid: int, own_session: int) -> None:
    """Reap it, if it is one."""
    with _lock:
        found = procfs.process(pid) if pid not in _started else None
        if found is not None and found.session != own_session:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
