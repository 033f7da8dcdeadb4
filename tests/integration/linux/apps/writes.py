"""Tries to write in every way it knows, below the folder that it may write and elsewhere; says what became of each.

With a number it becomes that user first: not everybody can reach the interpreter.
"""

import errno
import json
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

inside, outside, foreign_root = map(Path, sys.argv[1:4])


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def moved_between_folders() -> None:
    for name in ("a", "b"):
        (inside / name).mkdir()
    (inside / "a" / "file").write_text("mine")
    (inside / "a" / "file").rename(inside / "b" / "file")
    (inside / "b" / "file").unlink()


def special_files() -> None:
    (inside / "link").symlink_to("x")
    os.mkfifo(inside / "fifo")
    bind(inside / "socket")


def truncated() -> None:
    (inside / "t").write_text("long")
    os.truncate(inside / "t", 0)


def through_a_link() -> None:
    (inside / "way").symlink_to(kept)
    (inside / "way").write_text("x")


kept = outside / "kept"
WAYS: dict[str, Callable[[], object]] = {
    "inside: folders and files": moved_between_folders,
    "inside: link, FIFO, socket": special_files,
    "inside: truncate": truncated,
    "null": lambda: Path("/dev/null").write_text("x"),
    "stdout again": lambda: Path("/dev/stderr").open("a").close(),
    "create": lambda: (outside / "new").write_text("x"),
    "write": lambda: kept.write_text("x"),
    "append": lambda: kept.open("a"),
    "truncate": lambda: os.truncate(kept, 0),
    "truncate by opening": lambda: os.open(kept, os.O_RDONLY | os.O_TRUNC),
    "remove": kept.unlink,
    "folder": (outside / "folder").mkdir,
    "remove a folder": (outside / "empty").rmdir,
    "move out": lambda: kept.rename(inside / "kept"),
    "move in": lambda: (inside / "t").rename(outside / "t"),
    "hard link in": lambda: os.link(kept, inside / "linked"),
    "through a symbolic link": through_a_link,
    "FIFO": lambda: os.mkfifo(outside / "fifo"),
    "socket": lambda: bind(outside / "socket"),
    "shared memory": lambda: (Path("/dev/shm") / outside.name).write_text("x"),
    "its own name": lambda: Path("/proc/self/comm").write_text("x"),
    "another's root": lambda: Path(f"{foreign_root}{outside}/new").write_text("x"),
    "device node": lambda: os.mknod(inside / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 7)),
    "mode": lambda: kept.chmod(0o777),
    "times": lambda: os.utime(kept),
}


def tried(way: Callable[[], object]) -> str:
    try:
        way()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


if __name__ == "__main__":
    for uid in map(int, sys.argv[4:]):
        os.fchown(2, uid, uid)
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    sys.stdout.write(json.dumps({name: tried(way) for name, way in WAYS.items()}) + "\n")
