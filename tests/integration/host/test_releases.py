"""The releases of a host on a real disk: what is kept, what is refused, what is left behind."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from agent.errors import FailedError, RollwayError, VerificationError
from agent.host.assignments import AppKey
from agent.host.releases import Releases
from agent.model.assignment import ReleaseRef
from agent.model.ids import Digest, ReleaseName
from agent.model.process import AppSpec
from tests.integration.host.source import APP, ENVIRONMENT, FolderSource, web

pytestmark = pytest.mark.anyio

KEY = AppKey(APP, ENVIRONMENT)
SPEC = AppSpec(app=APP, processes=(web("127.0.0.1:8080"),))


@pytest.fixture
def source(tmp_path: Path) -> FolderSource:
    (tmp_path / "source").mkdir()
    return FolderSource(tmp_path / "source")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    Releases(folder, FolderSource(folder)).sweep()
    return folder


async def test_the_same_build_is_fetched_once_however_often_it_is_asked_for(state: Path, source: FolderSource) -> None:
    """Asked for twice at the same moment, and again later, and by a second release: one download, all answered."""
    releases = Releases(state, source)
    one = source.add("v1", SPEC, files={"VERSION": "same"})
    two = source.add("v2", SPEC, files={"VERSION": "same"}, version="v1")
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(releases.prepare, KEY, one)
    await releases.prepare(KEY, two)
    assert source.archives_fetched == 1
    assert (await releases.runnable(KEY, one)).tree == (await releases.runnable(KEY, two)).tree


def changed(tree: Path) -> None:
    (tree / "VERSION").chmod(0o644)
    (tree / "VERSION").write_text("v9")
    (tree / "VERSION").chmod(0o444)


def added(tree: Path) -> None:
    tree.chmod(0o755)
    (tree / "VERSION.pyc").write_text("")


def removed(tree: Path) -> None:
    tree.chmod(0o755)
    (tree / "VERSION").unlink()


def made_writable(tree: Path) -> None:
    (tree / "VERSION").chmod(0o666)


@contextmanager
def no_room_above(size_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond `size_bytes`, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


TAMPERING: dict[str, Callable[[Path], None]] = {
    "a file with other content of the same size": changed,
    "a file that was not built": added,
    "a file that is gone": removed,
    "a file that others may write": made_writable,
}


@pytest.mark.parametrize("tamper", TAMPERING.values(), ids=TAMPERING.keys())
async def test_a_tampered_file_is_named_before_a_launch_and_before_the_release_counts_as_there(
    tamper: Callable[[Path], None], state: Path, source: FolderSource
) -> None:
    """Whatever was done to one file of an unpacked release, the refusal names that file."""
    releases = Releases(state, source)
    ref = source.add("v1", SPEC)
    await releases.prepare(KEY, ref)
    tree = (await releases.runnable(KEY, ref)).tree
    tamper(tree)
    for ask in (releases.runnable, releases.prepare):
        with pytest.raises(VerificationError, match=f"cannot trust {tree}/VERSION"):
            await ask(KEY, ref)


async def test_a_release_is_the_one_that_was_ordered_or_none(state: Path, source: FolderSource) -> None:
    """Another payload under the ordered name, or the payload of another release, is refused; nothing is kept."""
    releases = Releases(state, source)
    one, two = source.add("v1", SPEC), source.add("v2", SPEC)
    swapped = {
        replace(one, digest=Digest("sha256:" + "0" * 64)): "its digest is",
        ReleaseRef(name=one.name, digest=two.digest): "its digest is",
    }
    for ref, reason in swapped.items():
        with pytest.raises(VerificationError, match=reason):
            await releases.prepare(KEY, ref)
    source.serve_as("v3", "v1")
    with pytest.raises(VerificationError, match="it is shop v1 for production"):
        await releases.prepare(KEY, ReleaseRef(name=ReleaseName("v3"), digest=one.digest))
    assert list((state / "releases").rglob("release.json")) == []


async def test_a_damaged_record_on_the_disk_is_fetched_again(state: Path, source: FolderSource) -> None:
    """A torn `release.json` or manifest is not believed any more; the source's takes its place, the build stays."""
    releases = Releases(state, source)
    ref = source.add("v1", SPEC)
    await releases.prepare(KEY, ref)
    for damaged in (*(state / "releases").rglob("release.json"), *(state / "releases").rglob("manifest.json")):
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(RollwayError):
            await releases.runnable(KEY, ref)
        await releases.prepare(KEY, ref)
        assert damaged.read_bytes() == whole
    assert source.archives_fetched == 1


async def test_a_full_disk_is_a_failure_in_words_and_leaves_nothing(state: Path, source: FolderSource) -> None:
    """No room while a build is stored: the failure says so, no download and no half tree stays, and a retry works."""
    releases = Releases(state, source)
    ref = source.add("v1", SPEC, files={"big": "x" * 1_000_000})
    with no_room_above(100_000), pytest.raises(FailedError, match=r"cannot (prepare|unpack).*(File too large|space)"):
        await releases.prepare(KEY, ref)
    assert list((state / "downloads").iterdir()) == []
    assert list((state / "builds").rglob("big")) == []
    await releases.prepare(KEY, ref)
    assert (await releases.runnable(KEY, ref)).release.name == "v1"


async def test_what_a_killed_agent_left_half_done_is_gone_after_the_next_start(
    state: Path, source: FolderSource
) -> None:
    """Half a download and half an unpacked tree disappear at start, and the whole build beside them stays."""
    releases = Releases(state, source)
    ref = source.add("v1", SPEC)
    await releases.prepare(KEY, ref)
    build = (await releases.runnable(KEY, ref)).tree.parent
    half = build / ".unpacking-abc"
    half.mkdir()
    (half / "part").write_text("x")
    half.chmod(0o555)
    (state / "downloads" / "abc.tar.zst").write_text("x")
    releases.sweep()
    assert [path.name for path in build.iterdir()] == ["tree"]
    assert list((state / "downloads").iterdir()) == []
    await releases.runnable(KEY, ref)
