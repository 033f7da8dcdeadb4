"""A build: the immutable artifact of one commit, and the manifest that describes every byte of it."""

from msgspec import Struct

from agent.model.ids import AppName, Digest
from agent.model.process import AppSpec


class FileEntry(Struct, frozen=True, kw_only=True):
    """One file or symbolic link of the archive. `path` is relative, with `/`, never `..`; folders are implied."""

    path: str
    mode: int
    """Permission bits: 0o644 or 0o755; 0o777 for a symbolic link."""
    size_bytes: int
    digest: Digest | None = None
    link: str | None = None
    """Target of a symbolic link; then there is no digest."""


class Archive(Struct, frozen=True, kw_only=True):
    """The `tar.zst`. Its own digest depends on the libzstd that packed it; the tar's does not."""

    digest: Digest
    size_bytes: int
    tar_digest: Digest
    tar_bytes: int
    zstd_version: str
    zstd_level: int


class Build(Struct, frozen=True, kw_only=True):
    """The build manifest. Its `id` is the archive's digest."""

    app: AppName
    version: str
    commit: str
    committed_at_s: int
    """The commit's time, seconds since 1970 UTC: the time of every file of the archive."""
    archive: Archive
    files: tuple[FileEntry, ...]
    spec: AppSpec

    @property
    def id(self) -> Digest:
        return self.archive.digest
