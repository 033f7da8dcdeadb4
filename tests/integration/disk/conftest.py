"""A small disk of its own for each test, which can be filled to the last byte or the last inode, and emptied again."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import pytest

PAGE: Final = 4096
SIZE: Final = "size=4m,nr_inodes=400"
_FILL: Final = ".fill"

Lack = Literal["bytes", "inodes"]


class Disk:
    """`root` is what the program sees; what fills it lies beside, on the same disk."""

    def __init__(self, mounted: Path) -> None:
        self.root = mounted / "root"
        self.root.mkdir()
        self._filler = mounted / "filler"

    def fill(self, lack: Lack, left: int = 0) -> None:
        """Nothing is left of it but `left` pages or inodes."""
        self._filler.mkdir()
        with contextlib.suppress(OSError):
            if lack == "inodes":
                for number in range(10**6):
                    (self._filler / str(number)).touch()
            else:
                with (self._filler / "0").open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(PAGE))
        if lack == "bytes":
            os.truncate(self._filler / "0", max(0, (self._filler / "0").stat().st_size - left * PAGE))
        else:
            for path in sorted(self._filler.iterdir())[:left]:
                path.unlink()

    def free(self) -> None:
        """There is room again."""
        subprocess.run(["rm", "-r", str(self._filler)], check=True)

    def content(self) -> dict[str, bytes | str]:
        """Every file and link on it; a FIFO or a socket by its name alone. SQLite's own files beside it come and go."""
        found: dict[str, bytes | str] = {}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if name.endswith(("-shm", "-wal")):
                continue
            if path.is_symlink():
                found[name] = str(path.readlink())
            elif path.is_file():
                found[name] = path.read_bytes()
            elif not path.is_dir():
                found[name] = "special"
        return found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", SIZE, "none", str(mounted)], check=True)
    try:
        yield Disk(mounted)
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)
