"""A stream of bytes to a file: whole and verified, or not there at all.

Rules: the bytes go to a temporary file in the target's folder, are hashed while they come, are on the disk before the
file has its name. More bytes than the bound, another digest, a full disk or a cancelled caller leave nothing behind.
"""

import hashlib
import os
import tempfile
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread

from agent.errors import VerificationError
from agent.model.ids import Digest


async def receive(chunks: AsyncIterable[bytes], target: Path, *, digest: Digest, size_bytes_max: int) -> int:
    """The number of bytes stored at `target`. Raises VerificationError; OSError, naming `target`, for the disk."""
    with _beside(target) as (staging, file):
        size_bytes = await _copy(chunks, target, file, digest, size_bytes_max)
        with _named(target):
            await anyio.to_thread.run_sync(_keep, file, staging, target)
    return size_bytes


@contextmanager
def _named(target: Path) -> Iterator[None]:
    """Have errors of the disk name the file that was to come: a full disk names none."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(target), None
        raise


@contextmanager
def _beside(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A file in the target's folder, gone at the end unless it was renamed."""
    with _named(target):
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:64]}.", dir=target.parent)
    staging = Path(name)
    file = os.fdopen(descriptor, "wb")
    try:
        yield staging, file
    finally:
        with suppress(OSError):  # what is kept is on the disk by now; what is not failed before
            file.close()
        staging.unlink(missing_ok=True)


async def _copy(chunks: AsyncIterable[bytes], target: Path, file: BinaryIO, digest: Digest, size_bytes_max: int) -> int:
    hashed = hashlib.sha256()

    def take(chunk: bytes) -> None:
        hashed.update(chunk)
        file.write(chunk)

    size_bytes = 0
    async for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > size_bytes_max:
            raise VerificationError(f"cannot receive {digest}: it has more than the {size_bytes_max} bytes expected")
        with _named(target):
            await anyio.to_thread.run_sync(take, chunk)
    found = f"sha256:{hashed.hexdigest()}"
    if found != digest:
        raise VerificationError(
            f"cannot receive {digest}: {size_bytes} bytes came, and they have the digest {found}",
            "Send it again; if it differs again, what was sent is not what was built.",
        )
    return size_bytes


def _keep(file: BinaryIO, staging: Path, target: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    staging.rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
