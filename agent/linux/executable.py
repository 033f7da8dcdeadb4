"""What a launch would run, found out before anything is started: so that a failure has its errno and a sentence.

Rules: the same order as execve(2) and a shell: PATH, permission, interpreter line. Nothing here changes anything; the
file may still change until it is run. Where an ACL stands beside the mode bits, the kernel is left to decide. A program
whose dynamic loader is missing, or for another machine, is found only by running it: exit code 126 or 127.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_INTERPRETERS_MAX: Final = 4  # as the kernel: scripts whose interpreter is a script
_LINE_BYTES: Final = 256
_BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")


class Identity(Struct, frozen=True):
    """As whom a process runs."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class ExecFailure(Struct, frozen=True):
    """Why nothing was started: the errno that the kernel would give, and what it is about."""

    errno: int
    what: str

    def __str__(self) -> str:
        return f"{self.what}: {os.strerror(self.errno)}"


def resolve(word: str, env: Mapping[str, str], cwd: Path, identity: Identity | None) -> Path | ExecFailure:
    """Find the file that `word` means for this environment and folder, and make sure that it can be run."""
    if (problem := _unusable_folder(cwd, identity)) is not None:
        return problem
    found = _on_path(word, env.get("PATH", DEFAULT_PATH), cwd, identity)
    if isinstance(found, ExecFailure):
        return found
    return _interpretable(found, env, cwd, identity) or found


def _on_path(word: str, path: str, cwd: Path, identity: Identity | None) -> Path | ExecFailure:
    if not word or "\0" in word:
        return ExecFailure(errno.ENOENT, f"{word!r} is no command")
    if "/" in word:
        found = Path(cwd, word)
        return _unrunnable(found, identity) or found
    denied: ExecFailure | None = None
    for folder in path.split(":"):
        found = Path(cwd, folder or ".", word)
        problem = _unrunnable(found, identity)
        if problem is None:
            return found
        if problem.errno == errno.EACCES:
            denied = denied or problem
    return denied or ExecFailure(errno.ENOENT, f"{word} is not on PATH ({path})")


def _interpretable(file: Path, env: Mapping[str, str], cwd: Path, identity: Identity | None) -> ExecFailure | None:
    """Follow interpreter lines, also through `/usr/bin/env NAME`."""
    script = file
    for _ in range(_INTERPRETERS_MAX):
        try:
            start = _read(script)
        except OSError:
            return None  # a program may be run without being readable; a script may not, and then says so
        if not start.startswith(b"#!"):
            known = start.startswith(b"\x7fELF") or _has_other_formats()
            return None if known else ExecFailure(errno.ENOEXEC, f"{script} is no program and has no #! line")
        words = start[2:].split(b"\n", 1)[0].decode(errors="replace").split()
        if not words:
            return ExecFailure(errno.ENOEXEC, f"{script} has an empty #! line")
        interpreter = Path(cwd, words[0])
        if (problem := _unrunnable(interpreter, identity)) is not None:
            return ExecFailure(problem.errno, f"{script} wants the interpreter {words[0]}")
        if interpreter.name == "env" and len(words) > 1 and not words[1].startswith("-") and "=" not in words[1]:
            named = _on_path(words[1], env.get("PATH", DEFAULT_PATH), cwd, identity)
            if isinstance(named, ExecFailure):
                return ExecFailure(named.errno, f"{script} wants the interpreter {words[1]} from PATH")
            interpreter = named
        script = interpreter
    return ExecFailure(errno.ELOOP, f"{file} has too many interpreters")


def _read(file: Path) -> bytes:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _LINE_BYTES)
    finally:
        os.close(fd)


def _unrunnable(file: Path, identity: Identity | None) -> ExecFailure | None:
    try:
        found = file.stat()
    except OSError as error:
        return ExecFailure(error.errno or errno.EIO, str(file))
    if not stat.S_ISREG(found.st_mode) or not _may(file, found, identity):
        return ExecFailure(errno.EACCES, str(file))
    return next((ExecFailure(errno.EACCES, f"{file}: {folder}") for folder in _closed_above(file, identity)), None)


def _unusable_folder(folder: Path, identity: Identity | None) -> ExecFailure | None:
    try:
        found = folder.stat()
    except OSError as error:
        return ExecFailure(error.errno or errno.EIO, f"working directory {folder}")
    if not stat.S_ISDIR(found.st_mode):
        return ExecFailure(errno.ENOTDIR, f"working directory {folder}")
    if not _may(folder, found, identity) or any(_closed_above(folder, identity)):
        return ExecFailure(errno.EACCES, f"working directory {folder}")
    return None


def _closed_above(file: Path, identity: Identity | None) -> Iterator[Path]:
    """Folders above that another user may not enter; for ourselves the kernel has answered by stat already."""
    if identity is not None:
        yield from (folder for folder in file.resolve().parents if not _may(folder, folder.stat(), identity))


def _may(file: Path, found: os.stat_result, identity: Identity | None) -> bool:
    """Whether the identity may run this file or enter this folder."""
    if identity is None:
        return os.access(file, os.X_OK)
    if identity.uid == 0:
        return stat.S_ISDIR(found.st_mode) or bool(found.st_mode & 0o111)
    if identity.uid == found.st_uid:
        allowed = found.st_mode & stat.S_IXUSR
    elif found.st_gid in (identity.gid, *identity.groups):
        allowed = found.st_mode & stat.S_IXGRP
    else:
        allowed = found.st_mode & stat.S_IXOTH
    return bool(allowed) or _has_acl(file)


def _has_acl(file: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(file)
    except OSError:
        return False


def _has_other_formats() -> bool:
    """Whether binfmt_misc knows formats beside programs and scripts."""
    try:
        return any(entry.name not in ("register", "status") for entry in _BINFMT.iterdir())
    except OSError:
        return False
