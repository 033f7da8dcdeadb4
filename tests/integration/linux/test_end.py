"""How the end of a process is seen, and how nothing of a tree survives it."""

import os
import resource
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread
from structlog.testing import capture_logs

from agent.linux import cgroup, pidfd, procfs
from agent.linux.killtree import Tree, end_tree
from agent.linux.pidfd import ExitStatus
from tests.integration.limits import few_fds, no_more_fds
from tests.integration.linux.conftest import PYTHON, Start, Started

# A daemon that leaves by the book: two forks, a session of its own; then it says its pid and stays.
DAEMON = """
import os, sys
stay = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if sys.argv[1] == "clean":
            os.execve(sys.executable, [sys.executable, "-c", stay], {})
        exec(stay)
    os._exit(0)
os.wait()
import signal; signal.pause()
"""
ENDS = {
    "exit code": ("import sys; sys.exit(7)", (7, None)),
    "no error": ("pass", (0, None)),
    "signal": ("import os; os.kill(os.getpid(), 15)", (None, 15)),
    "signal with a core": ("import os; os.kill(os.getpid(), 11)", (None, 11)),
}
MIB = 1 << 20


def how(status: ExitStatus) -> tuple[int | None, int | None]:
    return status.code, status.signal


@pytest.mark.anyio
@pytest.mark.parametrize(("code", "expected"), ENDS.values(), ids=ENDS)
async def test_the_exit_of_a_child_is_seen(code: str, expected: tuple[int | None, int | None], start: Start) -> None:
    """A process that ends by itself is reported with its own code or signal."""
    process = start(PYTHON, "-c", code)
    with anyio.fail_after(10):
        await pidfd.exited(process.pidfd)
        assert how(await pidfd.wait_exit(process.pidfd)) == expected


def test_what_a_child_has_used_is_known_at_its_end(start: Start) -> None:
    """Its processor time and its most memory; where that is no more than our own ever was, nobody can tell."""
    own_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024
    code = f"import time; bytearray({own_bytes + 64 * MIB})\nwhile time.process_time() < 0.2: pass"
    used = start(PYTHON, "-c", code).exit().used
    assert used is not None
    assert 200 <= used.cpu_ms < 5_000
    assert used.max_rss_bytes is not None
    assert own_bytes + 64 * MIB <= used.max_rss_bytes < own_bytes + 128 * MIB
    small = start("/bin/true").exit().used
    assert small is not None
    assert small.max_rss_bytes is None, "what it has inherited of us is not its own"


@pytest.mark.parametrize("limit_bytes", [resource.RLIM_INFINITY, 1], ids=["allowed", "not allowed"])
def test_whether_a_core_was_dumped_is_known(limit_bytes: int, start: Start) -> None:
    """A crash is told with whether there is something to look into."""
    crashed = start("/bin/sh", "-c", "kill -ABRT $$", rlimits={resource.RLIMIT_CORE: (limit_bytes, limit_bytes)}).exit()
    assert how(crashed) == (None, 6)
    assert crashed.dumped_core is (limit_bytes != 1)


@pytest.mark.anyio
async def test_the_exit_of_an_adopted_process_is_seen(start: Start) -> None:
    """A process that is not our child any more is still seen to end, with its code where the kernel tells it."""
    code = (
        "import os, signal\n"
        "pid = os.fork()\n"
        "if pid == 0: signal.pause()\n"
        "print(pid, flush=True); print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)"
    )
    parent = start(PYTHON, "-c", code)
    pid = int(parent.line())
    started = procfs.start_time(pid)
    assert started is not None
    adopted = pidfd.open_pidfd(pid, started)
    assert adopted is not None
    assert pidfd.collect(adopted) is None
    assert pidfd.send_signal(adopted, signal.SIGKILL)
    with anyio.fail_after(10):
        assert await pidfd.wait_exit(adopted) in (ExitStatus(signal=9), pidfd.UNKNOWN_EXIT)
    assert parent.line() == "-9"
    assert not pidfd.send_signal(adopted, 0)
    os.close(adopted)


def test_another_process_with_the_number_is_not_taken(start: Start) -> None:
    """A pid that was given to somebody else meanwhile is not mistaken for the instance."""
    process = start("/bin/cat", "/proc/self/status")
    assert pidfd.open_pidfd(process.pid, process.start_time + 1) is None
    process.rest()
    process.exit()
    assert pidfd.open_pidfd(process.pid, process.start_time) is None


def test_who_executes_one_program_after_the_other_is_seen_at_each_look(start: Start, tmp_path: Path) -> None:
    """In the middle of an execve(2) a process has no environment for a moment: its mark is not missed for that."""
    again = """[ -e "$1" ] || { echo up; : >"$1"; }; exec /bin/sh -c "$0" "$0" "$1" """
    mark = f"shop/web.1/{uuid4()}"
    process = start("/bin/sh", "-c", again, again, str(tmp_path / "up"), env={"MARK": mark})
    process.line()
    assert [look for look in range(300) if f"MARK={mark}" not in procfs.marks(f"MARK={mark}")] == []


def test_a_thread_is_no_process() -> None:
    """The number of a thread names nobody who could be watched or ended."""
    with ThreadPoolExecutor(1) as pool:
        number = pool.submit(threading.get_native_id).result()
        assert pidfd.open_pidfd(number, procfs.start_time(number) or 0) is None


async def daemon_of(start: Start, leaf: Path | None, environment: str) -> tuple[Started, str, int]:
    mark = f"MARK=shop/web.1/{uuid4()}"
    process = start(PYTHON, "-c", DAEMON, environment, env={"MARK": mark.removeprefix("MARK=")}, cgroup=leaf)
    return process, mark, int(await to_thread.run_sync(process.line))


def is_alive(pid: int) -> bool:
    found = procfs.process(pid)
    return found is not None and found.state not in "ZX"


@pytest.mark.anyio
async def test_a_daemon_does_not_escape_a_cgroup(start: Start) -> None:
    """With cgroup v2 all of a tree ends at once, also who left session, parents and environment behind."""
    root = cgroup.detect()
    if root is None:
        pytest.skip("this machine has no writable cgroup v2")
    leaf = cgroup.create(root, f"rollway-test-{uuid4()}")
    process, mark, daemon = await daemon_of(start, leaf, "clean")
    assert sorted(cgroup.pids(leaf)) == sorted({process.pid, daemon})
    assert not cgroup.is_empty(leaf)
    assert not cgroup.remove(leaf)
    assert await end_tree(Tree(pid=process.pid, mark=mark, cgroup=str(leaf))) == ()
    assert not is_alive(daemon)
    assert how(process.exit()) == (None, 9)
    assert cgroup.is_empty(leaf)
    assert cgroup.remove(leaf)
    assert cgroup.remove(leaf), "twice is once"


@pytest.mark.anyio
async def test_a_daemon_does_not_escape_the_walk(start: Start) -> None:
    """Without cgroups a daemon is found by the mark that it carries, when it has left session and parents."""
    process, mark, daemon = await daemon_of(start, None, "marked")
    assert procfs.process(daemon) != procfs.process(process.pid)
    assert await end_tree(Tree(pid=process.pid, mark=mark)) == ()
    assert not is_alive(daemon)
    assert how(process.exit()) == (None, 9)


@pytest.mark.anyio
async def test_a_tree_is_ended_once_there_are_descriptors_to_find_it(start: Start) -> None:
    """An agent that has no descriptor left waits and tries again; it does not take for gone what it cannot see."""
    process, mark, daemon = await daemon_of(start, None, "marked")
    tree, ended = Tree(pid=process.pid, start_time=process.start_time, mark=mark), list[tuple[int, ...]]()

    async def end() -> None:
        ended.append(await end_tree(tree))

    with capture_logs() as told, anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            with no_more_fds():
                tasks.start_soon(end)
                while not told:
                    await anyio.lowlevel.checkpoint()
            assert is_alive(daemon)
            assert not ended
    assert told[0]["log_level"] == "warning"
    assert how(process.exit()) == (None, 9)
    assert not is_alive(daemon)


def test_nobody_is_taken_for_gone_for_want_of_descriptors(start: Start) -> None:
    """That a process cannot be looked at because no descriptor is left is an error, and not that there is none."""
    process = start("/bin/cat", "/proc/self/status")
    with no_more_fds(), pytest.raises(OSError, match="Too many open files"):
        procfs.process(process.pid)
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers, not paths
    with few_fds(1), pytest.raises(OSError, match="Too many open files"):
        pidfd.open_pidfd(process.pid, process.start_time)
    with no_more_fds(), pytest.raises(OSError, match="Too many open files"):
        procfs.socket_inodes([process.pid])
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - numbers, not paths


@pytest.mark.anyio
async def test_the_walk_kills_nobody_else(start: Start) -> None:
    """A neighbour's mark that begins with ours is another mark; and the agent does not end itself."""
    process, mark, daemon = await daemon_of(start, None, "marked")
    neighbour = start(
        "/bin/sh", "-c", "echo up; exec /bin/cat /dev/zero >/dev/null", env={"MARK": mark.removeprefix("MARK=") + "1"}
    )
    neighbour.line()
    assert await end_tree(Tree(pid=process.pid, mark=mark)) == ()
    assert is_alive(neighbour.pid)
    assert is_alive(os.getpid())
    assert not is_alive(daemon)
