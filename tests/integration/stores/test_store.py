"""What every store promises, run against each store there is: a new one is a new line in STORES."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.errors import InvariantBrokenError, NotFoundError, RefusedError, VerificationError
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName
from agent.stores.directory import DirectoryStore
from agent.stores.store import Store

SHOP, BLOG = AppName("shop"), AppName("blog")
LOCAL = EnvironmentName("local")
V1 = ReleaseName("v1.0.0")

STORES: dict[str, Callable[[Path], Store]] = {"directory": lambda tmp_path: DirectoryStore(tmp_path / "store")}


@pytest.fixture(params=STORES.values(), ids=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    made: Store = request.param(tmp_path)
    return made


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "archive"
    path.write_bytes(b"x" * 3_000_000)
    return path


def digest_of(path: Path) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")


def test_a_build_is_kept(store: Store, archive: Path) -> None:
    """An archive and its manifest are read back as they were put, and the build is listed for its app only."""
    digest = digest_of(archive)
    store.put_archive(SHOP, digest, archive)
    assert store.list_builds(SHOP) == []
    store.put_manifest(SHOP, digest, b"{}")
    with store.open_archive(SHOP, digest) as file:
        assert file.read() == archive.read_bytes()
    assert store.read_manifest(SHOP, digest) == b"{}"
    assert (store.list_builds(SHOP), store.list_builds(BLOG)) == ([digest], [])


def test_an_archive_can_be_put_twice(store: Store, archive: Path) -> None:
    """The same archive again changes nothing."""
    for _ in range(2):
        store.put_archive(SHOP, digest_of(archive), archive)
    with store.open_archive(SHOP, digest_of(archive)) as file:
        assert file.read() == archive.read_bytes()


def test_an_archive_that_is_not_its_digest_is_refused(store: Store, archive: Path, tmp_path: Path) -> None:
    """What was damaged on its way into the store is not kept."""
    digest = digest_of(archive)
    archive.write_bytes(b"y")
    with pytest.raises(VerificationError, match=f"expected {digest}"):
        store.put_archive(SHOP, digest, archive)
    with pytest.raises(NotFoundError):
        store.open_archive(SHOP, digest)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_a_manifest_is_never_replaced(store: Store, archive: Path) -> None:
    """The same manifest again is fine, another is refused and changes nothing."""
    digest = digest_of(archive)
    for _ in range(2):
        store.put_manifest(SHOP, digest, b"{}")
    with pytest.raises(RefusedError, match=f"another manifest for build {digest} of shop"):
        store.put_manifest(SHOP, digest, b"{ }")
    assert store.read_manifest(SHOP, digest) == b"{}"


def test_a_release_is_created_once(store: Store) -> None:
    """A name that is taken is refused, also by the same bytes, and what was there stays."""
    store.put_release(SHOP, LOCAL, V1, b"one")
    for envelope in (b"two", b"one"):
        with pytest.raises(RefusedError, match=r"release v1\.0\.0 of shop in local: the name is taken"):
            store.put_release(SHOP, LOCAL, V1, envelope)
    assert store.read_release(SHOP, LOCAL, V1) == b"one"


def test_releases_are_listed_by_environment(store: Store) -> None:
    """Each environment of each app has its own names, in order."""
    for environment, name in ((LOCAL, "v2"), (LOCAL, "v1"), (EnvironmentName("production"), "v3")):
        store.put_release(SHOP, environment, ReleaseName(name), b"")
    assert store.list_releases(SHOP, LOCAL) == ["v1", "v2"]
    assert store.list_releases(SHOP, EnvironmentName("production")) == ["v3"]
    assert store.list_releases(BLOG, LOCAL) == []


def test_of_many_writers_one_wins(store: Store) -> None:
    """Twenty writers of one name at the same moment: one creates the release, nineteen are refused."""
    start = threading.Barrier(20)

    def put(number: int) -> bool:
        start.wait()
        try:
            store.put_release(SHOP, LOCAL, V1, b"%d" % number * 10_000)
        except RefusedError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        won = list(pool.map(put, range(20)))
    assert won.count(True) == 1
    assert store.read_release(SHOP, LOCAL, V1) == b"%d" % won.index(True) * 10_000


def test_what_is_missing_is_named(store: Store) -> None:
    """Asking for what is not there says what is not there."""
    digest = Digest("sha256:" + "a" * 64)
    with pytest.raises(NotFoundError, match="no build sha256:aaa"):
        store.read_manifest(SHOP, digest)
    with pytest.raises(NotFoundError, match="no build sha256:aaa"):
        store.open_archive(SHOP, digest)
    with pytest.raises(NotFoundError, match=r"no release v1\.0\.0 of shop in local"):
        store.read_release(SHOP, LOCAL, V1)


UNCHECKED: dict[str, Callable[[Store], object]] = {
    "an app": lambda store: store.list_builds(AppName("../x")),
    "a digest": lambda store: store.read_manifest(SHOP, Digest("sha256:../../x")),
    "an environment": lambda store: store.list_releases(SHOP, EnvironmentName("a/b")),
    "a release": lambda store: store.put_release(SHOP, LOCAL, ReleaseName("../x"), b""),
}


@pytest.mark.parametrize("ask", UNCHECKED.values(), ids=list(UNCHECKED))
def test_unchecked_names_stop_the_caller(store: Store, ask: Callable[[Store], object]) -> None:
    """A name that was not checked is our own mistake, and never becomes a path."""
    with pytest.raises(InvariantBrokenError):
        ask(store)
