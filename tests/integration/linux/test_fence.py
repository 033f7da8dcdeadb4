"""The fence around a process: it writes below the folders that it is given and nowhere else, whoever it is."""

import json
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.linux import fence
from agent.linux.executable import ExecFailure
from agent.linux.fence import Fence, Means
from agent.linux.spawn import Launch, spawn
from tests.integration.limits import without_landlock
from tests.integration.linux.conftest import PYTHON, Start

WRITES = str(Path(__file__).parent / "apps" / "writes.py")
IS_ROOT = os.geteuid() == 0
HERE = fence.means()
ALLOWED = {"inside: folders and files", "inside: link, FIFO, socket", "inside: truncate", "null", "stdout again"}
REFUSED = {"EACCES", "EROFS", "EXDEV"}
OF_ITS_OWNER = {"mode", "times"}
"""What Landlock does not heed: whoever owns a file still changes these."""
WAYS = {
    "all that this machine has": HERE,
    "a kernel that knows no truncate": Means(min(HERE.landlock, 2), HERE.mounts),
    "Landlock alone": Means(HERE.landlock, mounts=False),
}


@pytest.fixture
def folders() -> Iterator[tuple[Path, Path]]:
    """One to write in, and one beside it, both open to everybody."""
    with tempfile.TemporaryDirectory(prefix="rw-") as made:
        above = Path(made).resolve()
        above.chmod(0o755)
        for name in ("inside", "outside"):
            (above / name).mkdir()
            (above / name).chmod(0o777)
        (above / "outside" / "empty").mkdir()
        (above / "outside" / "kept").write_text("precious")
        (above / "outside" / "kept").chmod(0o666)
        yield above / "inside", above / "outside"


@pytest.mark.parametrize("who", [None, pwd.getpwnam("nobody").pw_uid], ids=["as the agent", "as another"])
@pytest.mark.parametrize("means", WAYS.values(), ids=WAYS)
def test_nothing_is_written_elsewhere(means: Means, who: int | None, start: Start, folders: tuple[Path, Path]) -> None:
    """Not by opening, creating, moving, linking or removing, nor by way of another process; root neither."""
    if not IS_ROOT and (who or not means.suffice):
        pytest.skip("only root starts a process as another user, or has mounts of its own")
    inside, outside = folders
    words = [PYTHON, WRITES, str(inside), str(outside), f"/proc/{os.getpid()}/root"]
    words += [str(who)] if who else []
    lines = start(*words, fence=Fence((inside,), means)).rest().splitlines()
    became = json.loads(lines[-1])
    assert {way for way, how in became.items() if how == "done"} - OF_ITS_OWNER == ALLOWED
    others = {how for way, how in became.items() if way not in ALLOWED | OF_ITS_OWNER | {"device node"}}
    assert others <= REFUSED
    assert became["device node"] in {"EACCES", "EPERM"}
    if means.mounts:
        assert {became[way] for way in OF_ITS_OWNER} == {"EROFS"}
    assert (outside / "kept").read_text() == "precious"
    assert sorted(path.name for path in outside.iterdir()) == ["empty", "kept"]


def test_the_agent_stays_free(start: Start, folders: tuple[Path, Path]) -> None:
    """What keeps one process in keeps in neither who started it nor what that starts next."""
    inside, outside = folders
    start("/bin/true", fence=Fence((inside,), HERE)).exit()
    (outside / "of-ours").touch()
    assert start("/bin/sh", "-c", f"echo x >{outside}/of-another && echo done").rest() == "done\n"


@pytest.fixture
def shared(folders: tuple[Path, Path]) -> Iterator[tuple[Path, int]]:
    """A folder to write in, whose mounts come to everybody, as all mounts of a host do under systemd; a FIFO in it."""
    inside, _ = folders
    subprocess.run(["/bin/mount", "-t", "tmpfs", "none", inside], check=True)
    subprocess.run(["/bin/mount", "--make-shared", inside], check=True)
    (inside / "disk").mkdir()
    os.mkfifo(inside / "go")
    go = os.open(inside / "go", os.O_RDWR)
    yield inside, go
    os.close(go)
    subprocess.run(["/bin/umount", "--recursive", inside], check=True)


@pytest.mark.skipif(not HERE.mounts, reason="only root mounts")
def test_what_is_mounted_later_is_seen(start: Start, shared: tuple[Path, int]) -> None:
    """A disk that comes below its folder while it runs is there for it, and goes again, which nobody holds up."""
    folder, go = shared
    disk = folder / "disk"
    look = f"echo up; read -r _ <{folder}/go; echo x >{disk}/file && echo written; read -r _ <{folder}/go"
    process = start("/bin/sh", "-c", look, fence=Fence((folder,), HERE))
    assert process.line() == "up"
    subprocess.run(["/bin/mount", "-t", "tmpfs", "none", disk], check=True)
    os.write(go, b"\n")
    assert process.line() == "written"
    assert (disk / "file").read_text() == "x\n"
    subprocess.run(["/bin/umount", disk], check=True)
    os.write(go, b"\n")
    assert process.exit().code == 0


UNFIT = {
    "a folder that is not there": ("missing", "No such file or directory"),
    "a symbolic link": ("link", "a symbolic link leads there: give the real name of the folder"),
    "a folder behind one": ("link/inside", "a symbolic link leads there: give the real name of the folder"),
}


@pytest.mark.parametrize(("name", "said"), UNFIT.values(), ids=UNFIT)
def test_a_folder_that_cannot_be_given_is_named(name: str, said: str, folders: tuple[Path, Path]) -> None:
    """It is said before anything starts, and a process is not started without it."""
    above = folders[0].parent
    (above / "link").symlink_to(above)
    path = above / name
    assert fence.unfit(path) == f"{path}: {said}"
    launch = Launch(argv=("/bin/true",), env={}, cwd=above, stdout=1, stderr=2, fence=Fence((path,), HERE))
    failed = spawn(launch)
    assert isinstance(failed, ExecFailure)
    assert failed.what == f"cannot keep it from writing elsewhere: {path}"


def test_a_kernel_without_it_is_known() -> None:
    """Where the kernel has no Landlock, mounts alone are not enough: there are ways around them."""
    found = without_landlock(fence.means)
    assert found.landlock == 0
    assert not found.suffice
    assert str(found).startswith("no Landlock")
