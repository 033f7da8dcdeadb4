"""Files that are whole or not there, whatever crashes: the only way in which the agent writes to disk.

Rules: a temporary file beside the target, its content and mode on the disk before the rename, the folder's entry after
it. Every failure is an OSError and leaves the old file. Not handled here: locking; a file has one writer.
"""

import contextlib
import errno
import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

READ_BYTES_MAX: Final = 64 << 20
PAGE_BYTES: Final = mmap.PAGESIZE
_OVER: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def write_atomically(path: Path | str, data: bytes, mode: int = 0o600, *, lasting: bool = True) -> None:
    """Put `data` in place of whatever `path` was; a reader sees the old or the new, never half.

    Without `lasting` that holds against every crash but the machine's own, and costs no wait for the disk.
    """
    if not lasting:
        _replace(os.fspath(path), data, mode)
        return
    path = Path(path)
    with _written_beside(path, data, mode) as temporary:
        temporary.replace(path)
    _sync_folder(path.parent)


def _replace(path: str, data: bytes, mode: int) -> None:
    """The same without a wait, for who writes at every turn: what a crash leaves beside it is written over."""
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.new"
    try:
        fd = os.open(temporary, _OVER, mode)
        try:
            os.fchmod(fd, mode)
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
        finally:
            os.close(fd)
        os.replace(temporary, path)  # noqa: PTH105 - a path costs as much as the call
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - as above
        error.filename, error.filename2 = path, None
        raise


def write_page(path: str, page: bytes) -> None:
    """Put `page`, at most PAGE_BYTES, over what a file of that size has: a crash of ours leaves the old or the new.

    For who writes often, at a third of the price: a SIGKILL ends a write(2) between two pages, never in one of them
    (generic_perform_write in mm/filemap.c). A crash of the machine may leave both, and who reads meanwhile see both.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.pwrite(fd, page, 0)
    finally:
        os.close(fd)


def create_exclusive(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file that must not be there yet: FileExistsError if it is, and then nothing has changed."""
    with _written_beside(path, data, mode) as temporary:
        os.link(temporary, path)
    _sync_folder(path.parent)


def read(path: Path, limit_bytes: int = READ_BYTES_MAX) -> bytes:
    """Give the whole content of a file; OSError (EFBIG) where it is longer than it may be. A pipe is not waited for."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise OSError(errno.EFBIG, f"longer than {limit_bytes} bytes", str(path))
    return data


@contextmanager
def _written_beside(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Give a file that is on the disk with its content and mode; what still has its name afterwards is removed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, _NEW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        yield temporary
    except OSError as error:
        # Who meets it is to be told the file that was to be written, not its neighbour, or none as a full disk does.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
