"""The folder of one instance: drain notice, TMPDIR, the FIFOs of its output and the socket of its notices.

Rules: TMPDIR is empty and the notice gone at each start; the notice appears whole, readable for everybody; nothing here
may block the loop, so callers run these in a thread.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from agent.linux import atomic
from agent.linux.removal import remove_tree

STREAMS: Final = ("stdout", "stderr")
NOTIFY: Final = "notify"
_TMP: Final = "tmp"
_OWN: Final = 0o600
_THROUGH: Final = 0o711
"""Folders above an instance's own: whoever knows a name gets through, nobody lists."""


class Folder:
    def __init__(self, run_dir: Path, name: str) -> None:
        self.name: Final = f"{run_dir}/i/{name}"
        """Its path as text: to put paths together costs as much as what is done with them."""

    @property
    def notice(self) -> str:
        return f"{self.name}/drain"

    @property
    def tmp(self) -> str:
        return f"{self.name}/{_TMP}"

    @cached_property
    def path(self) -> Path:
        return Path(self.name)

    @property
    def notify(self) -> str:
        """The socket of sd_notify(3)."""
        return f"{self.name}/{NOTIFY}"

    def prepare(self) -> None:
        """Make it as a new process is to find it, whatever a process or an agent before has left. Raises OSError."""
        try:
            self._make()
        except FileExistsError:
            self.remove()
            with contextlib.suppress(FileNotFoundError):  # what nobody can remove, as a mount, must not be in the way
                self.path.rename(self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}"))
            self._make()
        os.mkdir(self.tmp, 0o700)  # noqa: PTH102 - at each start

    def _make(self) -> None:
        try:
            os.mkdir(self.name)  # noqa: PTH102 - as above
        except FileNotFoundError:
            self.path.mkdir(parents=True)
            self.path.parent.chmod(_THROUGH)
        os.chmod(self.name, _THROUGH)  # noqa: PTH101 - as above

    def give_to(self, uid: int, gid: int, streams: Iterable[int] = ()) -> None:
        """Let another user write what is there by now: its TMPDIR, its output opened again, its notices."""
        for fd in streams:
            os.fchown(fd, uid, -1)  # of a terminal the group is the system's
        for path in (self.tmp, *(f"{self.name}/{name}" for name in (NOTIFY, *STREAMS))):
            with contextlib.suppress(FileNotFoundError):  # not every process has notices
                os.chown(path, uid, gid, follow_symlinks=False)

    def is_as_made(self, uid: int, gid: int, opened: Mapping[str, int], *, has_notify: bool) -> bool:
        """Whether nobody has changed it, and TMPDIR is empty; `opened` are its FIFOs, as they were made."""
        expected = {_TMP: stat.S_IFDIR | 0o700, **dict.fromkeys(opened, stat.S_IFIFO | _OWN)}
        if has_notify:
            expected[NOTIFY] = stat.S_IFSOCK | _OWN
        try:
            if expected.keys() != set(os.listdir(self.name)) or os.listdir(self.tmp):  # noqa: PTH208 - names
                return False
            for name, mode in expected.items():
                found = os.lstat(f"{self.name}/{name}")
                if (found.st_mode, found.st_uid, found.st_gid) != (mode, uid, gid):
                    return False
                if name in opened and found.st_ino != os.fstat(opened[name]).st_ino:
                    return False
            return os.lstat(self.name).st_mode == stat.S_IFDIR | _THROUGH
        except OSError:
            return False

    def show_notice(self) -> None:
        """Raises OSError."""
        atomic.write_atomically(self.notice, b"", mode=0o444, lasting=False)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            remove_tree(self.path)
