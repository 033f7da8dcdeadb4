"""An archive as a read-only folder, whole or not at all.

Rules: the manifest decides (agent.artifacts.manifest has checked it), the archive only supplies content. Its tar is not
parsed: each header must be, byte for byte, the one that the manifest's next file has (agent.wire.tar), so there is no
way to say "..", device, hard link or setuid. At most as many bytes are decompressed as the manifest announces. Files
are written beside the target in a folder of our own, without following links, and synced; one rename shows them.
"""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, Self

from agent.artifacts import zstd
from agent.artifacts.archive import CHUNK
from agent.artifacts.leftovers import LEFTOVER, remove, sweep
from agent.artifacts.verify import READ_ONLY, verify
from agent.errors import FailedError, VerificationError
from agent.model.build import Archive, Build, FileEntry
from agent.wire import tar

__all__ = ["remove", "sweep", "unpack", "verify"]

_FOLDER_MODE: Final = 0o555
_ADVICE: Final = "Nothing of it was kept. Fetch it again; if it happens again, build it again from its commit."
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(archive: Path, build: Build, target: Path) -> None:
    """Make `target` from `archive`. If it is there already it is verified instead: asking twice is harmless."""
    if target.exists():
        verify(target, build)
        return
    try:
        with _beside(target) as folder:
            with archive.open("rb") as source:
                _write_tree(_Content(_decompressed(source, build.archive)), build, folder)
            _appear(folder, target, build)
    except OSError as error:
        raise FailedError(
            f"cannot unpack {build.app} {build.version} into {target}: {error.strerror}",
            "Nothing of it was kept. Free space (`df -h`, `df -i`) or correct the permissions, then try again.",
        ) from error


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A new folder beside `target`; gone at the end unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=LEFTOVER, dir=target.parent))
    try:
        yield folder
    finally:
        if folder.exists():
            remove(folder)


def _appear(folder: Path, target: Path, build: Build) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
        verify(target, build)
        return
    parent = os.open(target.parent, _FOLDER)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _decompressed(source: BinaryIO, expected: Archive) -> Iterator[bytes]:
    """The tar in pieces; when it has been read to its end, both digests have been right."""
    packed, unpacked = hashlib.sha256(), hashlib.sha256()
    size = tar_size = 0
    decompressor = zstd.decompressor()
    try:
        while not decompressor.eof:
            chunk = source.read(CHUNK) if decompressor.needs_input else b""
            if decompressor.needs_input and not chunk:
                raise VerificationError("cannot unpack the archive: it ends too early", _ADVICE)
            size += len(chunk)
            packed.update(chunk)
            piece = decompressor.decompress(chunk, max_length=CHUNK)
            tar_size += len(piece)
            unpacked.update(piece)
            if tar_size > expected.tar_bytes:
                raise VerificationError(f"cannot unpack the archive: more than {expected.tar_bytes} bytes", _ADVICE)
            yield piece
    except zstd.ZstdError as error:
        raise VerificationError(f"cannot unpack the archive: {error}", _ADVICE) from error
    found = (size, f"sha256:{packed.hexdigest()}", tar_size, f"sha256:{unpacked.hexdigest()}")
    if found != (expected.size_bytes, expected.digest, expected.tar_bytes, expected.tar_digest) or source.read(1):
        raise VerificationError(f"cannot unpack the archive: it is {found[1]}, expected {expected.digest}", _ADVICE)


class _Content:
    """Exactly so many bytes at a time out of pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._rest or next(self._pieces, None)
            if piece is None:
                raise VerificationError("cannot unpack the archive: its tar ends too early", _ADVICE)
            taken, self._rest = piece[:size], piece[size:]
            size -= len(taken)
            yield taken

    def expect(self, wanted: bytes, what: str) -> None:
        found = b"".join(self.pieces(len(wanted)))
        if found != wanted:
            raise VerificationError(
                f"cannot unpack the archive: expected {what}, found {tar.shown_name(found)!r:.120} or other attributes",
                _ADVICE,
            )

    def end(self) -> None:
        """Read to the very end, so that the digests of the whole are checked."""
        if self._rest or any(self._pieces):
            raise VerificationError("cannot unpack the archive: something follows its last file", _ADVICE)


def _write_tree(content: _Content, build: Build, folder: Path) -> None:
    with _Folders(folder) as folders:
        for entry in build.files:
            *above, name = entry.path.split("/")
            parent = folders.enter(above)
            content.expect(tar.header(entry, build.committed_at_s), f"{entry.path!r} next")
            if entry.link is not None:
                os.symlink(entry.link, name, dir_fd=parent)
            else:
                _write_file(content, entry, name, parent, build.committed_at_s)
        content.expect(tar.END, "the end")
        content.end()


def _write_file(content: _Content, entry: FileEntry, name: str, parent: int, mtime_s: int) -> None:
    digest = hashlib.sha256()
    with os.fdopen(os.open(name, _CREATE, 0o600, dir_fd=parent), "wb", buffering=0) as file:
        for piece in content.pieces(entry.size_bytes):
            digest.update(piece)
            _write_all(file.fileno(), piece)
        if f"sha256:{digest.hexdigest()}" != entry.digest:
            raise VerificationError(f"cannot unpack {entry.path!r}: its content is not what was built", _ADVICE)
        os.fchmod(file.fileno(), READ_ONLY[entry.mode])
        os.utime(file.fileno(), (mtime_s, mtime_s))
        os.fsync(file.fileno())
    content.expect(tar.padding(entry.size_bytes), f"nothing more of {entry.path!r}")


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


class _Folders:
    """The chain of open folders above the file that is written; a folder is closed read-only and synced.

    Paths ascend, so a folder that was left is never needed again.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        self._open.append(("", os.open(self._root, _FOLDER)))
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        while self._open:
            self._leave()

    def enter(self, names: list[str]) -> int:
        """The open folder at `names` below the root, made as needed."""
        while [name for name, _ in self._open[1:]] != names[: len(self._open) - 1]:
            self._leave()
        for name in names[len(self._open) - 1 :]:
            parent = self._open[-1][1]
            os.mkdir(name, 0o700, dir_fd=parent)
            self._open.append((name, os.open(name, _FOLDER, dir_fd=parent)))
        return self._open[-1][1]

    def _leave(self) -> None:
        _, folder = self._open.pop()
        try:
            os.fchmod(folder, _FOLDER_MODE)
            os.fsync(folder)
        finally:
            os.close(folder)
