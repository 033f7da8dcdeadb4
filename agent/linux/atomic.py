"""Files that are whole or not there, whatever crashes: the only way in which the agent writes to disk.

Rules: a temporary file beside the target, its content and mode on the disk before the rename, the folder's entry after
it. Every failure is an OSError and leaves the old file. Not handled here: locking; a file has one writer.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

READ_BYTES_MAX: Final = 64 << 20
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def write_atomically(path: Path, data: bytes, mode: int = 0o600, *, lasting: bool = True) -> None:
    """Put `data` in place of whatever `path` was; a reader sees the old or the new, never half.

    Without `lasting` that holds against every crash but the machine's own, and costs no wait for the disk.
    """
    with _written_beside(path, data, mode, lasting=lasting) as temporary:
        temporary.replace(path)
    if lasting:
        _sync_folder(path.parent)


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
def _written_beside(path: Path, data: bytes, mode: int, *, lasting: bool = True) -> Iterator[Path]:
    """Give a file that is on the disk with its content and mode; what still has its name afterwards is removed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, _NEW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            if lasting:
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
