"""Whether an unpacked folder still is what was built; asked before each launch, it names what differs.

Rules: every file is read again and compared by kind, size, mode and digest; nothing more may lie there; links are
looked at, never followed.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.artifacts.manifest import FILE_MODE, PROGRAM_MODE
from agent.errors import VerificationError
from agent.model.build import Build, FileEntry
from agent.model.ids import Digest

READ_ONLY: Final = {FILE_MODE: 0o444, PROGRAM_MODE: 0o555}
"""The permission bits that a built file has once it is unpacked."""

_CHUNK: Final = 256 * 1024
_ADVICE: Final = "It is not started. Remove the release's folder on this host and swap to the release again."


def verify(folder: Path, build: Build) -> None:
    """Raise VerificationError unless `folder` holds exactly the files of `build`."""
    try:
        fault = _first_fault(folder, build)
    except OSError as error:
        raise VerificationError(f"cannot trust {folder}: {error.strerror}", _ADVICE) from error
    if fault is not None:
        path, why = fault
        raise VerificationError(f"cannot trust {folder / path}: {why}", _ADVICE)


def _first_fault(folder: Path, build: Build) -> tuple[str, str] | None:
    if folder.is_symlink():
        return ".", "it is a link"
    wanted = {entry.path: entry for entry in build.files}
    for path, name, parent in _found(folder):
        entry = wanted.pop(path, None)
        why = "it is not part of the build" if entry is None else _difference(entry, name, parent)
        if why is not None:
            return path, why
    return (min(wanted), "it is missing") if wanted else None


def _found(folder: Path) -> Iterator[tuple[str, str, int]]:
    """Path, name and open parent folder of everything below `folder` that is not a folder."""
    for at, folders, files, parent in os.fwalk(folder, onerror=_raise):
        below = os.path.relpath(at, folder)
        links = [name for name in folders if stat.S_ISLNK(_stat(name, parent).st_mode)]
        for name in (*files, *links):
            yield name if below == "." else f"{below}/{name}", name, parent


def _raise(error: OSError) -> None:
    raise error


def _stat(name: str, parent: int) -> os.stat_result:
    return os.stat(name, dir_fd=parent, follow_symlinks=False)


def _difference(entry: FileEntry, name: str, parent: int) -> str | None:
    """What differs between `entry` and the file `name` in the open folder `parent`."""
    found = _stat(name, parent)
    if entry.link is not None:
        is_same = stat.S_ISLNK(found.st_mode) and os.readlink(name, dir_fd=parent) == entry.link
        return None if is_same else f"it is not a link to {entry.link!r}"
    if not stat.S_ISREG(found.st_mode):
        return "it is not a plain file"
    if found.st_size != entry.size_bytes:
        return f"it has {found.st_size} bytes, expected {entry.size_bytes}"
    if stat.S_IMODE(found.st_mode) != READ_ONLY[entry.mode]:
        return f"its mode is {stat.S_IMODE(found.st_mode):o}, expected {READ_ONLY[entry.mode]:o}"
    if _digest(name, parent) != entry.digest:
        return "its content is not what was built"
    return None


def _digest(name: str, parent: int) -> Digest:
    digest = hashlib.sha256()
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent), "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return Digest(f"sha256:{digest.hexdigest()}")
