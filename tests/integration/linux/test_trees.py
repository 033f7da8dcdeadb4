"""Nothing of a tree survives its end, whatever it does to get away: by cgroup v2, and by looking for it without."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from anyio import to_thread

from agent.linux import cgroup, pidfd, procfs
from agent.linux.killtree import Tree, end_tree
from tests.integration.linux.conftest import PYTHON, Start, Started

pytestmark = pytest.mark.anyio
APP = Path(__file__).parent / "apps" / "trees.py"
SAY = {"wrapper": 5, "runner": 4, "daemon": 3, "session": 2, "bomb": 1, "hopper": 2}
"""How many processes say their number before a kind of tree is complete, or far enough."""


@pytest.fixture(params=["by cgroup", "by looking"])
def leaf(request: pytest.FixtureRequest) -> Iterator[Path | None]:
    """A leaf of cgroup v2, or none: a host may have either."""
    if request.param == "by looking":
        yield None
        return
    root = cgroup.detect()
    if root is None:
        pytest.skip("this machine has no writable cgroup v2")
    made = cgroup.create(root, f"rollway-test-{uuid4()}")
    yield made
    assert cgroup.remove(made)


async def grown(start: Start, kind: str, leaf: Path | None, folder: Path) -> tuple[Started, Tree, list[int]]:
    """Such a tree, how it is known, and the processes that said so."""
    mark = f"shop/{uuid4()}"
    environment = {"PATH": os.environ["PATH"], "MARK": mark}
    process = start(PYTHON, str(APP), kind, str(folder / "counter"), env=environment, cgroup=leaf)
    with anyio.fail_after(20):
        said = [int(await to_thread.run_sync(process.line)) for _ in range(SAY[kind])]
    tree = Tree(pid=process.pid, start_time=process.start_time, mark=f"MARK={mark}", cgroup=str(leaf) if leaf else None)
    return process, tree, said


def living(tree: Tree, said: list[int]) -> list[int]:
    """Who lives of it, whoever asks: by its environment, which no kind of tree here throws away, and by number."""
    marked = [pid for pid in procfs.processes() if tree.mark.encode() in _environment(pid)]
    return [pid for pid in {*marked, *said} if (found := procfs.process(pid)) is not None and found.state not in "ZX"]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


@pytest.mark.parametrize("is_left", [False, True], ids=["with its main process", "after its main process"])
@pytest.mark.parametrize("kind", SAY)
async def test_nothing_of_a_tree_survives(
    kind: str, leaf: Path | None, start: Start, tmp_path: Path, *, is_left: bool
) -> None:
    """Wrappers, daemons, sessions of their own, fork bombs and who is never the same are gone, all of them, at once."""
    process, tree, said = await grown(start, kind, leaf, tmp_path)
    assert living(tree, said)
    if is_left:
        assert pidfd.send_signal(process.pidfd, signal.SIGKILL)
        process.exit()
    with anyio.fail_after(20):
        assert await end_tree(tree, deadline_ms=15_000) == ()
    assert living(tree, said) == []


async def test_the_stop_signal_alone_ends_none_of_them(start: Start, tmp_path: Path, leaf: Path | None) -> None:
    """A tree that ignores SIGTERM stays whole under it, so what ends it is SIGKILL to all."""
    process, tree, said = await grown(start, "session", leaf, tmp_path)
    for pid in said:
        os.kill(pid, signal.SIGTERM)
    assert set(living(tree, said)) == set(said)
    assert await end_tree(tree) == ()
    assert living(tree, said) == []
    assert process.exit().signal == signal.SIGKILL


async def test_hundreds_are_ended_by_a_few_looks(start: Start) -> None:
    """Who ends many at once without cgroups does not look at all processes of the machine for each of them."""

    async def cpu_s_for(count: int) -> float:
        marks = [f"shop/{uuid4()}" for _ in range(count)]
        trees = [
            Tree(pid=process.pid, start_time=process.start_time, mark=f"MARK={mark}")
            for mark in marks
            for process in [start("/bin/sleep", "600", env={"MARK": mark})]
        ]
        before = time.process_time()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for tree in trees:
                    tasks.start_soon(end_tree, tree)
        used = time.process_time() - before
        assert not any(living(tree, [tree.pid]) for tree in trees)
        return used

    others = [start("/bin/sleep", "600", env={"OTHER": "yes"}) for _ in range(200)]
    assert await cpu_s_for(100) < 25 * await cpu_s_for(1)
    assert all(living(Tree(pid=other.pid, mark="NONE="), [other.pid]) for other in others)
