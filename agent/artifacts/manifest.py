"""The build manifest: its bytes, and what a tree must be like before anything of it is written or unpacked.

Rules: paths are relative, plain and in ascending order, so none comes twice; nothing lies below a file or a link; a
link goes up only at its beginning and stays inside, so that following links can never leave the tree; counts and sizes
are bounded. Who unpacks needs to trust this check and the digests, nothing else.
"""

from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final

from msgspec import Struct

from agent.errors import VerificationError
from agent.model import ids
from agent.model.build import Build, FileEntry
from agent.model.ids import Digest
from agent.wire import canonical

FILE_MODE: Final = 0o644
PROGRAM_MODE: Final = 0o755
LINK_MODE: Final = 0o777

_ADVICE: Final = "Nothing of it was kept. Build it again from its commit."
_COMPONENT_BYTES_MAX: Final = 255
_TEXT_MAX: Final = 64


class Bounds(Struct, frozen=True, kw_only=True):
    """How much one build may be."""

    manifest_bytes: int = 64 << 20
    files: int = 200_000
    tar_bytes: int = 8 << 30
    path_bytes: int = 1024
    ratio: int = 1000
    """Bytes of tar for each byte of archive, beyond the first 64 MiB."""


BOUNDS: Final = Bounds()


def write_manifest(build: Build) -> bytes:
    return canonical.encode(build)


def read_manifest(data: bytes, expected: Digest | None = None, bounds: Bounds = BOUNDS) -> Build:
    """The checked build in `data`; raises VerificationError. `expected` is the digest that a release names."""
    if len(data) > bounds.manifest_bytes:
        raise VerificationError(
            f"cannot read the manifest: it has {len(data)} bytes, expected at most {bounds.manifest_bytes}", _ADVICE
        )
    if expected is not None and (found := canonical.digest_of(data)) != expected:
        raise VerificationError(f"cannot accept the manifest: its digest is {found}, expected {expected}", _ADVICE)
    build = canonical.decode(data, Build)
    fault = build_fault(build, bounds)
    if fault is not None:
        raise VerificationError(f"cannot accept the manifest: {fault}", _ADVICE)
    return build


def build_fault(build: Build, bounds: Bounds = BOUNDS) -> str | None:
    """What is wrong with `build`, or None."""
    archive = build.archive
    if not (ids.is_name(build.app) and build.spec.app == build.app):
        return f"wrong app {build.app!r:.40}"
    if not (0 < len(build.version) <= _TEXT_MAX and 0 < len(build.commit) <= _TEXT_MAX and build.committed_at_s >= 0):
        return "wrong version, commit or time"
    if not (ids.is_digest(archive.digest) and ids.is_digest(archive.tar_digest)):
        return "wrong digest of the archive"
    if len(build.files) > bounds.files:
        return f"{len(build.files)} files, expected at most {bounds.files}"
    if archive.tar_bytes > bounds.tar_bytes:
        return f"{archive.tar_bytes} bytes unpacked, expected at most {bounds.tar_bytes}"
    if archive.tar_bytes > archive.size_bytes * bounds.ratio + (64 << 20):
        return f"{archive.tar_bytes} bytes from an archive of {archive.size_bytes}, expected at most {bounds.ratio} : 1"
    return _files_fault(build.files, bounds)


def path_fault(path: str, bounds: Bounds = BOUNDS) -> str | None:
    """Why `path` cannot be in a build, or None."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    parts = path.split("/")
    if "\0" in path or not all(parts) or {".", ".."} & set(parts):
        return "its path is not plain (relative, without '.', '..' or empty parts)"
    if len(encoded) > bounds.path_bytes or any(len(part.encode()) > _COMPONENT_BYTES_MAX for part in parts):
        return f"its path is longer than {bounds.path_bytes} bytes, or a part of it than {_COMPONENT_BYTES_MAX}"
    return None


def link_fault(path: str, target: str, bounds: Bounds = BOUNDS) -> str | None:
    """Why a symbolic link at `path` cannot point to `target`, or None."""
    parts = target.split("/")
    climbs = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    if target.startswith("/"):
        return f"it points to the absolute path {target!r}"
    if climbs > path.count("/") or ".." in parts[climbs:]:
        return f"it points to {target!r}, which leaves the build or goes up after going down"
    rest = "/".join(parts[climbs:])
    return path_fault(rest, bounds) if rest else None


def _files_fault(files: tuple[FileEntry, ...], bounds: Bounds) -> str | None:
    for entry in files:
        fault = path_fault(entry.path, bounds) or _entry_fault(entry, bounds)
        if fault is not None:
            return f"{entry.path!r:.200}: {fault}"
    if any(one.path >= other.path for one, other in pairwise(files)):
        return "its files are not in ascending order, or one comes twice"
    leaves = {entry.path for entry in files}
    below = next((entry.path for entry in files if leaves & _parents(entry.path)), None)
    return f"{below!r:.200} lies below a file or a link" if below is not None else None


def _entry_fault(entry: FileEntry, bounds: Bounds) -> str | None:
    if entry.link is not None:
        is_plain_link = entry.mode == LINK_MODE and entry.size_bytes == 0 and entry.digest is None
        return link_fault(entry.path, entry.link, bounds) if is_plain_link else "wrong mode, size or digest of a link"
    if entry.mode not in (FILE_MODE, PROGRAM_MODE):
        return f"mode {entry.mode:o}, expected 644 or 755"
    if not (entry.digest is not None and ids.is_digest(entry.digest) and entry.size_bytes >= 0):
        return "wrong digest or size"
    return None


def _parents(path: str) -> set[str]:
    return {str(parent) for parent in PurePosixPath(path).parents}
