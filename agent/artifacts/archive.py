"""A folder as a deterministic `tar.zst`: the same tree gives the same bytes, wherever and whenever it lies.

Rules: sorted by path; owner 0:0; every time is the commit's; modes are 644 or 755; folders are implied, so an empty one
is lost, as in git. Links stay links if they stay inside; sockets, devices and FIFOs are refused by name. Memory is
bounded by the list of files, not by their content.
"""

import fnmatch
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from agent.artifacts import zstd
from agent.artifacts.manifest import FILE_MODE, LINK_MODE, PROGRAM_MODE, link_fault, path_fault
from agent.errors import FailedError
from agent.model.build import Archive, FileEntry
from agent.model.ids import Digest
from agent.wire import tar

CHUNK: Final = 256 * 1024


def pack(
    tree: Path, output: IO[bytes], *, mtime_s: int, exclude: tuple[str, ...]
) -> tuple[Archive, tuple[FileEntry, ...]]:
    """Write `tree` to `output`; what it was, in total and file by file."""
    sink = _Sink(output)
    entries = tuple(_pack_file(tree, path, mtime_s, sink) for path in sorted(_walk(tree, excluder(exclude))))
    sink.write(tar.END)
    return sink.finish(), entries


def excluder(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a path is left out. Patterns begin at the root; `*` and `?` stay within a name, `**/` crosses folders."""
    spelled = [pattern.strip("/").split("/") for pattern in patterns]
    return lambda path: any(_covers(pattern, path.split("/")) for pattern in spelled)


def _covers(pattern: list[str], names: list[str]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_covers(pattern[1:], names[n:]) for n in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], pattern[0]) and _covers(pattern[1:], names[1:])


def _walk(tree: Path, is_excluded: Callable[[str], bool], below: str = "") -> Iterator[str]:
    """Paths of everything but folders."""
    with os.scandir(tree / below) as found:
        entries = list(found)
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        if is_excluded(path):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(tree, is_excluded, path)
        else:
            yield path


def _pack_file(tree: Path, path: str, mtime_s: int, sink: "_Sink") -> FileEntry:
    found = (tree / path).lstat()
    fault = path_fault(path)
    if fault is not None:
        raise _refused(path, fault)
    if stat.S_ISLNK(found.st_mode):
        return _pack_link(tree, path, mtime_s, sink)
    if not stat.S_ISREG(found.st_mode):
        raise _refused(path, "it is neither a file, nor a folder, nor a symbolic link")
    mode = PROGRAM_MODE if found.st_mode & stat.S_IXUSR else FILE_MODE
    sink.write(tar.header(FileEntry(path=path, mode=mode, size_bytes=found.st_size), mtime_s))
    digest, size = hashlib.sha256(), 0
    with (tree / path).open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            sink.write(chunk)
    if size != found.st_size:
        raise _refused(path, "it changed while it was read: a build step left something running")
    sink.write(tar.padding(size))
    return FileEntry(path=path, mode=mode, size_bytes=size, digest=Digest(f"sha256:{digest.hexdigest()}"))


def _pack_link(tree: Path, path: str, mtime_s: int, sink: "_Sink") -> FileEntry:
    target = str((tree / path).readlink())
    fault = link_fault(path, target)
    if fault is not None:
        raise _refused(path, fault)
    entry = FileEntry(path=path, mode=LINK_MODE, size_bytes=0, link=target)
    sink.write(tar.header(entry, mtime_s))
    return entry


def _refused(path: str, fault: str) -> FailedError:
    return FailedError(
        f"cannot archive {path!r}: {fault}", "Remove it in a build step or name it in [build].exclude of rollway.toml."
    )


class _Sink:
    """Where the tar goes: counted, digested, compressed, counted and digested again."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self._compressor = zstd.compressor()
        self._tar_digest, self._tar_bytes = hashlib.sha256(), 0
        self._digest, self._size_bytes = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._tar_digest.update(data)
        self._tar_bytes += len(data)
        self._put(self._compressor.compress(data))

    def finish(self) -> Archive:
        self._put(self._compressor.flush())
        return Archive(
            digest=Digest(f"sha256:{self._digest.hexdigest()}"),
            size_bytes=self._size_bytes,
            tar_digest=Digest(f"sha256:{self._tar_digest.hexdigest()}"),
            tar_bytes=self._tar_bytes,
            zstd_version=zstd.zstd_version,
            zstd_level=zstd.LEVEL,
        )

    def _put(self, packed: bytes) -> None:
        self._digest.update(packed)
        self._size_bytes += len(packed)
        self._output.write(packed)
