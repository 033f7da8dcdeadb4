"""A store in a folder of one machine.

Rules: written beside, synced, then linked to its name: `link` refuses an existing name, so of two writers one wins;
then the folder is synced. A killed writer leaves only a `.putting-…` file, which `sweep` removes.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Final

from agent.errors import FailedError, NotFoundError, RefusedError, VerificationError, invariant
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName, is_digest, is_name, is_release_name

_UNFINISHED: Final = ".putting-"
_CHUNK: Final = 1 << 20
_ARCHIVE: Final = ".tar.zst"
_JSON: Final = ".json"


class DirectoryStore:
    """Implements agent.stores.store.Store below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put_archive(self, app: AppName, digest: Digest, source: Path) -> None:
        target = self._build(app, digest, _ARCHIVE)
        if not target.exists():
            with suppress(FileExistsError):
                self._create(target, lambda file: _copy(source, digest, file))

    def put_manifest(self, app: AppName, digest: Digest, manifest: bytes) -> None:
        target = self._build(app, digest, _JSON)
        try:
            self._create(target, lambda file: _write(manifest, file))
        except FileExistsError as error:
            if target.read_bytes() != manifest:
                raise RefusedError(
                    f"cannot store another manifest for build {digest} of {app}: it has one",
                    "The archive is the same but its description differs (version, tag): use the build that exists.",
                ) from error

    def open_archive(self, app: AppName, digest: Digest) -> BinaryIO:
        with _named(f"build {digest} of {app}", f"See `rollway build list {app}`."):
            return self._build(app, digest, _ARCHIVE).open("rb")

    def read_manifest(self, app: AppName, digest: Digest) -> bytes:
        with _named(f"build {digest} of {app}", f"See `rollway build list {app}`."):
            return self._build(app, digest, _JSON).read_bytes()

    def list_builds(self, app: AppName) -> list[Digest]:
        invariant(is_name(app), f"{app!r} was not checked before it reached the store")
        return [Digest(f"sha256:{stem}") for stem in _stems(self._root / "builds" / app)]

    def put_release(self, app: AppName, environment: EnvironmentName, name: ReleaseName, envelope: bytes) -> None:
        try:
            self._create(self._releases(app, environment) / _file(name), lambda file: _write(envelope, file))
        except FileExistsError as error:
            raise RefusedError(
                f"cannot create release {name} of {app} in {environment}: the name is taken",
                "Choose another with --name; a release is never changed.",
            ) from error

    def read_release(self, app: AppName, environment: EnvironmentName, name: ReleaseName) -> bytes:
        with _named(f"release {name} of {app} in {environment}", f"See `rollway release list {app} {environment}`."):
            return (self._releases(app, environment) / _file(name)).read_bytes()

    def list_releases(self, app: AppName, environment: EnvironmentName) -> list[ReleaseName]:
        return [ReleaseName(stem) for stem in _stems(self._releases(app, environment))]

    def sweep(self) -> None:
        """Remove what killed writers left; only at start, before anybody writes."""
        for leftover in self._root.glob(f"**/{_UNFINISHED}*"):
            leftover.unlink()

    def _build(self, app: AppName, digest: Digest, suffix: str) -> Path:
        invariant(is_name(app) and is_digest(digest), f"{app!r}, {digest!r} were not checked before the store")
        return self._root / "builds" / app / (digest.removeprefix("sha256:") + suffix)

    def _releases(self, app: AppName, environment: EnvironmentName) -> Path:
        invariant(is_name(app) and is_name(environment), f"{app!r}, {environment!r} were not checked before the store")
        return self._root / "releases" / app / environment

    def _create(self, target: Path, fill: Callable[[IO[bytes]], None]) -> None:
        """Make `target` durably and whole; FileExistsError if there is one."""
        try:
            _make_folder(target.parent)
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=_UNFINISHED) as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
                Path(target).hardlink_to(file.name)
            _sync_folder(target.parent)
        except FileExistsError:
            raise
        except OSError as error:
            raise FailedError(
                f"cannot store {target}: {error.strerror}",
                f"Nothing of it was kept. Free space below {self._root} (`df -h`, `df -i`) or correct its permissions.",
            ) from error


def _copy(source: Path, digest: Digest, file: IO[bytes]) -> None:
    found = hashlib.sha256()
    with source.open("rb") as archive:
        while chunk := archive.read(_CHUNK):
            found.update(chunk)
            file.write(chunk)
    if f"sha256:{found.hexdigest()}" != digest:
        raise VerificationError(
            f"cannot store {source.name}: it is sha256:{found.hexdigest()}, expected {digest}",
            "It was damaged on its way: send it again.",
        )


def _write(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def _file(name: ReleaseName) -> str:
    invariant(is_release_name(name), f"{name!r} was not checked before it reached the store")
    return name + _JSON


def _stems(folder: Path) -> list[str]:
    """Names of the finished JSON files in `folder`; none if there is no folder."""
    return sorted(file.name.removesuffix(_JSON) for file in folder.glob(f"[!.]*{_JSON}"))


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def _named(what: str, what_to_do: str) -> Iterator[None]:
    """A missing file is a missing `what`."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {what}", what_to_do) from error
