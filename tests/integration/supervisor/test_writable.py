"""Instances that may write below some folders alone: what they are otherwise is as ever; what cannot be had is said."""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest
from msgspec import structs

from agent.linux import cgroup
from agent.model.process import ExecCheck, NotifyCheck, Probe, Probes, ProcessType, Sandbox
from agent.supervisor import preflight
from tests.integration.limits import without_landlock
from tests.integration.supervisor.conftest import House, Slot, app, emptied, lives, script
from tests.integration.supervisor.keeper import Keeper
from tests.integration.supervisor.test_adopt import an_agent

IS_ROOT = os.geteuid() == 0
UP = "exec sleep 600"


@pytest.fixture
def above() -> Iterator[Path]:
    """A folder by its real name that others get into, with one to write in and one beside that."""
    with tempfile.TemporaryDirectory(prefix="rw-") as made:
        folder = Path(made).resolve()
        folder.chmod(0o755)
        for name in ("data", "beside"):
            (folder / name).mkdir()
            (folder / name).chmod(0o777)
        yield folder


@pytest.fixture
async def fenced(above: Path) -> AsyncIterator[House]:
    """With leaves of cgroup v2, where this machine has them."""
    root = cgroup.detect()
    leaves = cgroup.create(root, f"rollway-test-{uuid4()}") if root else None
    house = House(above, cgroup_root=leaves)
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        yield house
        await emptied(house)
        tasks.cancel_scope.cancel()
    assert leaves is None or cgroup.remove(leaves)


def writing(house: House, command: str, user: str | None = None) -> ProcessType:
    return structs.replace(script(command), sandbox=Sandbox(user=user, writable=(str(house.folder / "data"),)))


@pytest.mark.anyio
@pytest.mark.parametrize("user", [None, "daemon"])
async def test_it_writes_where_the_app_says(fenced: House, user: str | None) -> None:
    """Below its folders, in its TMPDIR and to its output opened again; nowhere else, as root neither."""
    if user and not IS_ROOT:
        pytest.skip("only root can start a process as another user")
    words = (
        'echo mine >"$TMPDIR/file" && cat "$TMPDIR/file"; echo kept >data/file && cat data/file; '
        "echo again >/dev/stdout; "
        "echo x 2>/dev/null >beside/file || echo refused; echo x 2>/dev/null >new || echo refused too; " + UP
    )
    said = ["mine", "kept", "again", "refused", "refused too"]
    key = fenced.launch(writing(fenced, words, user))
    await fenced.until(lambda: fenced.messages() == said)
    assert list((fenced.folder / "beside").iterdir()) == []
    await fenced.end(key)


@pytest.mark.anyio
async def test_it_is_supervised_as_ever(fenced: House, slot: Slot) -> None:
    """One pid with its socket, cgroup, notices, probes, signal and end; commands of probes are behind the fence too."""
    words = "setsid sleep 600 & echo $!; trap 'echo drains; exit' TERM; test -S /dev/fd/3 && echo socket $LISTEN_PID; "
    process = structs.replace(
        writing(fenced, words + app("notifier.py", "READY=1", "barrier", "exit") + "; wait"),
        probes=Probes(
            startup=Probe(check=NotifyCheck()),
            liveness=Probe(check=ExecCheck(command="echo asked >>data/asked; ! echo x >>beside/asked"), period_ms=100),
        ),
    )
    key = fenced.launch(process, **slot.given)
    pid = (await fenced.state("ready")).pid
    assert pid is not None
    heir, socket = map(str, fenced.messages()[:2])
    assert socket == f"socket {pid}"
    if fenced.cgroup_root is not None:
        assert {pid, int(heir)} <= set(cgroup.pids(fenced.cgroup_root / str(key)))
    with anyio.fail_after(10):
        while not (fenced.folder / "data" / "asked").exists():
            await anyio.lowlevel.checkpoint()
    await fenced.end(key)
    assert fenced.messages()[-1] == "drains"
    assert not lives(int(heir))
    assert list((fenced.folder / "beside").iterdir()) == []


@pytest.mark.anyio
async def test_its_agent_may_die(above: Path, keeper: Keeper) -> None:
    """The next one takes it up, and what that starts in its place is behind the same fence."""
    house = House(above, store=keeper.store)
    words = "echo x 2>/dev/null >beside/file || echo refused; exec sleep 600"
    async with an_agent(house):
        house.launch(writing(house, words))
        pid = (await house.state("ready")).pid
        await house.until(lambda: house.messages() == ["refused"])
    async with an_agent(house, keeper.inherited()):
        assert house.view().pid == pid
        os.kill(pid or 0, signal.SIGKILL)
        await house.until(lambda: house.messages() == ["refused"] * 2)
        assert house.view().pid != pid
        await emptied(house)


UNFIT = {
    "a folder that the host does not have": ("missing", "missing: No such file or directory"),
    "one that a symbolic link leads to": (
        "link",
        "link: a symbolic link leads there: give the real name of the folder",
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "said"), UNFIT.values(), ids=UNFIT)
async def test_a_folder_that_cannot_be_given_is_known_before_anything_moves(
    name: str, said: str, fenced: House
) -> None:
    """Preflight says which and why; so does a start, should it have gone since."""
    (fenced.folder / "link").symlink_to("data")
    process = structs.replace(script(UP), sandbox=Sandbox(writable=(str(fenced.folder / name),)))
    said = f"sandbox.writable: {fenced.folder}/{said}"
    assert await fenced.supervisor.refusal([process]) == said
    key = fenced.launch(process)
    assert said in (await fenced.state("exec_failed")).detail
    await fenced.end(key)


@pytest.mark.anyio
async def test_the_release_itself_is_given_to_nobody(fenced: House) -> None:
    """A folder that holds the release is refused: releases are read-only."""
    key = fenced.launch(structs.replace(script(UP), sandbox=Sandbox(writable=(str(fenced.folder),))))
    assert "holds the release, which nobody writes" in (await fenced.state("exec_failed")).detail
    await fenced.end(key)


@pytest.mark.anyio
async def test_a_host_that_cannot_keep_it_refuses(tmp_path: Path) -> None:
    """Where the kernel has no Landlock the release is refused and it is said what that takes."""
    process = structs.replace(script(UP), sandbox=Sandbox(writable=(str(tmp_path),)))
    refused = without_landlock(lambda: preflight.refusal(None, [process]))
    assert refused.startswith("this host cannot keep sandbox.writable: that takes Linux 6.2 with Landlock")
    assert "here: no Landlock" in refused
    assert 'enforce = "best-effort"' in refused


def test_what_an_app_can_do_without_is_told(above: Path) -> None:
    """With best effort it runs all the same, and its log says once that it may write elsewhere."""

    async def run() -> None:
        house = House(above)
        sandbox = Sandbox(writable=(str(above / "data"),), best_effort=True)
        async with an_agent(house):
            process = structs.replace(script("echo x >beside/file && echo written; exit 1"), sandbox=sandbox)
            assert await house.supervisor.refusal([process]) == ""
            house.launch(process)
            await house.until(lambda: house.messages()[:2] == ["written"] * 2)
            assert [fields for text, fields in house.told if text.startswith("runs without limits")] == [
                {"limits": "writable"}
            ]
            await emptied(house)

    without_landlock(lambda: anyio.run(run))
