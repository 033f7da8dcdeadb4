"""The folder of one instance: drain notice, TMPDIR, the FIFOs of its output and the socket of its notices.

Rules: TMPDIR is empty and the notice gone at each start; the notice appears whole, readable for everybody; nothing here
may block the loop, so callers run these in a thread.
"""

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agent.linux import atomic
from agent.linux.removal import remove_tree

STREAMS: Final = ("stdout", "stderr")
_THROUGH: Final = 0o711
"""Folders above an instance's own: whoever knows a name gets through, nobody lists."""


class Folder:
    def __init__(self, run_dir: Path, name: str) -> None:
        self.path: Final = run_dir / "i" / name
        self.notice: Final = self.path / "drain"
        self.tmp: Final = self.path / "tmp"
        self.notify: Final = self.path / "notify"
        """The socket of sd_notify(3)."""

    def prepare(self) -> None:
        """Make it as a new process is to find it, whatever a process or an agent before has left. Raises OSError."""
        self.remove()
        with contextlib.suppress(FileNotFoundError):  # what nobody can remove, as a mount, must not be in the way
            self.path.rename(self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}"))
        self.path.mkdir(parents=True)
        for folder in (self.path, self.path.parent):
            folder.chmod(_THROUGH)
        self.tmp.mkdir(mode=0o700)

    def give_to(self, uid: int, gid: int, streams: Iterable[int] = ()) -> None:
        """Let another user write what is there by now: its TMPDIR, its output opened again, its notices."""
        for fd in streams:
            os.fchown(fd, uid, -1)  # of a terminal the group is the system's
        for path in (self.tmp, self.notify, *(self.path / stream for stream in STREAMS)):
            with contextlib.suppress(FileNotFoundError):  # not every process has notices
                os.chown(path, uid, gid, follow_symlinks=False)

    def show_notice(self) -> None:
        """Raises OSError."""
        atomic.write_atomically(self.notice, b"", mode=0o444)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            remove_tree(self.path)
