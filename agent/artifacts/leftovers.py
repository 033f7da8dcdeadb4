"""What an unpacking that was killed leaves beside its target, and how a read-only folder is removed."""

import os
import shutil
from pathlib import Path
from typing import Final

LEFTOVER: Final = ".unpacking-"
"""What the name of such a folder begins with."""


def sweep(parent: Path) -> None:
    """Remove what killed unpacks left in `parent`; only when none runs there."""
    for leftover in parent.glob(f"{LEFTOVER}*"):
        remove(leftover)


def remove(folder: Path) -> None:
    """Remove a read-only folder, also as a plain user."""
    for _path, _folders, _files, opened in os.fwalk(folder):
        os.fchmod(opened, 0o700)
    shutil.rmtree(folder)
