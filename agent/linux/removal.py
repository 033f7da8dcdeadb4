"""The end of a folder in which somebody else wrote: gone, whatever they made of it.

Rules: no recursion and a bounded path, however deep the folders lie; what may not be written is opened up first, as
caches leave it; no symbolic link is followed. Failures are OSErrors, and what could be removed before is gone.
"""

import itertools
import os
import secrets
import stat
from pathlib import Path


def remove_tree(top: Path) -> None:
    """Remove `top`, a folder or anything else; nothing where there is nothing."""
    try:
        if not stat.S_ISDIR(top.lstat().st_mode):
            top.unlink()
            return
    except FileNotFoundError:
        return
    own, numbers = secrets.token_hex(8), itertools.count()
    _open_up(top)
    left = [top]
    while left:
        folder = left.pop()
        for entry in list(folder.iterdir()):
            if not stat.S_ISDIR(entry.lstat().st_mode):
                entry.unlink()
                continue
            _open_up(entry)
            # Up to the top: a path is never longer than two names below it.
            left.append(entry.rename(top / f"{own}-{next(numbers)}"))
        if folder != top:
            folder.rmdir()
    top.rmdir()


def _open_up(folder: Path) -> None:
    """Let us list it, empty it and move it; through a descriptor, for a link in its place must not be followed."""
    opened = os.open(folder, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        Path(f"/proc/self/fd/{opened}").chmod(0o700)
    finally:
        os.close(opened)
