"""The releases of a host: brought in, verified, unpacked once per build, and verified again before each launch.

Rules: envelope and manifest lie in `releases/<app>/<environment>/<name>/`, the files in `builds/<sha256>/tree`, which
all releases of that build share. `release.json` is written last, so a release that is there is whole. What lies on the
disk is believed no more than what came over the network: both pass the same checks. Nothing half there stays behind a
failure. Where the bytes come from is a `ReleaseSource`; link.fetch is one.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import anyio
from anyio import to_thread
from msgspec import Struct

from agent.artifacts import manifest, sign
from agent.artifacts.leftovers import sweep
from agent.artifacts.verify import verify
from agent.errors import FailedError, VerificationError
from agent.host.assignments import AppKey
from agent.linux import atomic
from agent.model.assignment import ReleaseRef
from agent.model.build import Build
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName
from agent.model.release import Release

FETCHES_AT_ONCE: Final = 2


class ReleaseSource(Protocol):
    """Gives bytes; says nothing about whether they can be trusted, except that an archive has its digest and size."""

    async def release(self, app: AppName, environment: EnvironmentName, name: ReleaseName) -> bytes: ...

    async def manifest(self, app: AppName, build: Digest) -> bytes: ...

    async def archive(self, app: AppName, build: Digest, size_bytes: int, target: Path) -> None: ...


class Runnable(Struct, frozen=True):
    """A release that lies verified on the host: what to run, and in which folder."""

    release: Release
    tree: Path


class _Papers(NamedTuple):
    """What is known of a release without its files: as bytes, and as what was verified in them."""

    envelope: bytes
    described: bytes
    release: Release
    build: Build

    @classmethod
    def of(cls, envelope: bytes, described: bytes, key: AppKey, ref: ReleaseRef) -> "_Papers":
        release = _checked(envelope, key, ref)
        return cls(envelope, described, release, _matching(described, release))


class Releases:
    def __init__(self, state_dir: Path, source: ReleaseSource) -> None:
        self._releases = state_dir / "releases"
        self._builds = state_dir / "builds"
        self._downloads = state_dir / "downloads"
        self._source = source
        self._fetching = anyio.CapacityLimiter(FETCHES_AT_ONCE)
        self._locks: dict[Digest, anyio.Lock] = {}
        self._looking = 0

    def sweep(self) -> None:
        """Remove what a killed agent left half done; at start, before anything is prepared."""
        for folder in (self._releases, self._builds, self._downloads):
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        for leftover in self._downloads.iterdir():
            leftover.unlink()
        for build in self._builds.iterdir():
            sweep(build)

    async def prepare(self, key: AppKey, ref: ReleaseRef) -> Release:
        """See that `ref` lies verified on this host. Raises RollwayError; asking again is harmless."""
        with _told(f"cannot prepare {key.app} {ref.name}"):
            with self._looks():
                stored = await to_thread.run_sync(self._stored, key, ref)
            papers = stored or await self._fetched(key, ref)
            async with self._alone(papers.build.id):
                await self._tree(papers.build)
                if stored is None:
                    await to_thread.run_sync(self._keep, key, papers)
        return papers.release

    async def runnable(self, key: AppKey, ref: ReleaseRef) -> Runnable:
        """The release as it lies here, every byte verified. Raises RollwayError naming the file that differs."""
        with self._looks():
            return await to_thread.run_sync(self._runnable, key, ref)

    @property
    def looks(self) -> bool:
        """Whether it is being verified what lies here."""
        return self._looking > 0

    @contextlib.contextmanager
    def _looks(self) -> Iterator[None]:
        self._looking += 1
        try:
            yield
        finally:
            self._looking -= 1

    def _runnable(self, key: AppKey, ref: ReleaseRef) -> Runnable:
        with _told(f"cannot start {key.app} {ref.name}"):
            papers = self._read(key, ref)
            tree = self._build(papers.build.id) / "tree"
            verify(tree, papers.build)
        return Runnable(papers.release, tree)

    def _stored(self, key: AppKey, ref: ReleaseRef) -> "_Papers | None":
        """What lies here, if it still is what is asked for."""
        with contextlib.suppress(FileNotFoundError, VerificationError):
            return self._read(key, ref)
        return None

    def _read(self, key: AppKey, ref: ReleaseRef) -> "_Papers":
        folder = self._folder(key, ref.name)
        return _Papers.of(atomic.read(folder / "release.json"), atomic.read(folder / "manifest.json"), key, ref)

    async def _fetched(self, key: AppKey, ref: ReleaseRef) -> "_Papers":
        envelope = await self._source.release(key.app, key.environment, ref.name)
        described = await self._source.manifest(key.app, _checked(envelope, key, ref).build)
        return await to_thread.run_sync(_Papers.of, envelope, described, key, ref)

    async def _tree(self, build: Build) -> None:
        tree = self._build(build.id) / "tree"
        if tree.exists():
            with self._looks():
                await to_thread.run_sync(verify, tree, build)
            return
        archive = self._downloads / f"{tree.parent.name}.tar.zst"
        try:
            await self._source.archive(build.app, build.id, build.archive.size_bytes, archive)
            await to_thread.run_sync(_unpack, archive, build, tree)
        finally:
            archive.unlink(missing_ok=True)

    def _keep(self, key: AppKey, papers: "_Papers") -> None:
        """Make the release be there; `tree` in its folder is for people, it is never followed."""
        folder = self._folder(key, papers.release.name)
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        link = folder / "tree"
        link.unlink(missing_ok=True)
        link.symlink_to(self._build(papers.build.id) / "tree")
        atomic.write_atomically(folder / "manifest.json", papers.described)
        atomic.write_atomically(folder / "release.json", papers.envelope)

    def _folder(self, key: AppKey, name: ReleaseName) -> Path:
        return self._releases / key.app / key.environment / name

    def _build(self, build: Digest) -> Path:
        return self._builds / build.removeprefix("sha256:")

    @contextlib.asynccontextmanager
    async def _alone(self, build: Digest) -> AsyncIterator[None]:
        """Whoever needs the same build waits, and then finds it; few builds are brought in at once."""
        async with self._locks.setdefault(build, anyio.Lock()), self._fetching:
            yield


def _checked(envelope: bytes, key: AppKey, ref: ReleaseRef) -> Release:
    found = sign.payload_digest(envelope)
    if found != ref.digest:
        raise VerificationError(
            f"cannot trust release {ref.name}: its digest is {found}, the order says {ref.digest}",
            "Make a new release and swap to that.",
        )
    release = sign.verify_release(envelope)
    if (release.app, release.environment, release.name) != (*key, ref.name):
        raise VerificationError(
            f"cannot trust release {ref.name}: it is {release.app} {release.name} for {release.environment}",
            f"Make a release of {key.app} for {key.environment}.",
        )
    return release


def _matching(data: bytes, release: Release) -> Build:
    build = manifest.read_manifest(data, release.build_manifest)
    if (build.app, build.id) != (release.app, release.build):
        raise VerificationError(
            f"cannot trust release {release.name}: its manifest describes {build.app} {build.id}",
            "Build the app again and make a new release.",
        )
    return build


def _unpack(archive: Path, build: Build, target: Path) -> None:
    # Seldom, and in a thread: with its libraries it takes an agent 1 MiB. Where there is no descriptor left to load it
    # with there is none for an archive either, and the same is told.
    from agent.artifacts.unpack import unpack  # noqa: PLC0415

    unpack(archive, build, target)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Failures of the disk, in words."""
    try:
        yield
    except OSError as error:
        raise FailedError(
            f"{what}: {error.strerror}: {error.filename}",
            "Free space (`df -h`, `df -i`) or correct the permissions, then swap again.",
        ) from error
