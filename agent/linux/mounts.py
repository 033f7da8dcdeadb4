"""What kind of file system a folder lies on, as the kernel's table of mounts says."""

import os
from pathlib import Path
from typing import Final

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_MOUNTS: Final = Path("/proc/self/mountinfo")


def is_in_memory(folder: Path) -> bool:
    """Whether no file in it ever waits for a disk. A folder that is not there yet is not."""
    try:
        device = folder.stat().st_dev
    except OSError:
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text("utf-8", "surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ", 3)[2] == wanted:
            return after.split(" ", 1)[0] in _IN_MEMORY
    return False
