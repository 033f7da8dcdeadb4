"""A commit as a folder: exactly the bytes of the commit, never those of the work tree.

Rules: blobs are read as git stores them, so no attribute, filter or line-ending setting of this machine changes a byte;
every file has the commit's time. PATH may be a folder inside a repository: then that folder of the commit is the app.
Submodules are refused by name, and so are paths that lead out of the folder, which git would not check out but a tree
made by hand may have. `ref` is looked up once; from then on only the commit counts.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

from msgspec import Struct

from agent.errors import FailedError, UsageError

_VERSION_TAG: Final = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_CHUNK: Final = 256 * 1024


class Source(Struct, frozen=True, kw_only=True):
    """A commit of a repository, and which folder of it."""

    repo: Path
    ref: str
    commit: str
    committed_at_s: int
    folder: str
    """Below the repository's root; empty or ending in `/`."""
    is_dirty: bool
    """Whether the work tree differs from its own last commit."""


def find(repo: Path, ref: str) -> Source:
    """The commit that `ref` names now; raises UsageError."""
    folder = _git(repo, "rev-parse", "--show-prefix").strip()
    try:
        commit = _git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}").strip()
    except UsageError as error:
        raise UsageError(
            f"cannot build {ref!r}: {repo} has no such commit, tag or branch", "See `git log --all --oneline`."
        ) from error
    return Source(
        repo=repo,
        ref=ref,
        commit=commit,
        committed_at_s=max(0, int(_git(repo, "show", "--no-patch", "--format=%ct", commit))),
        folder=folder,
        is_dirty=_is_dirty(repo),
    )


def tagged_version(source: Source) -> str | None:
    """The version in a tag vX.Y.Z of the commit; of several the highest, unless one of them was asked for."""
    tags = _git(source.repo, "tag", "--points-at", source.commit).split()
    versions = {tag: tuple(map(int, match.groups())) for tag in tags if (match := _VERSION_TAG.fullmatch(tag))}
    if not versions:
        return None
    chosen = source.ref if source.ref in versions else max(versions, key=lambda tag: versions[tag])
    return chosen.removeprefix("v")


def export(source: Source, target: Path) -> None:
    """Write the commit's files below `target`, a folder that is made."""
    target.mkdir(mode=0o755)
    entries = list(_tree(source))
    with subprocess.Popen(
        _command(source.repo, "cat-file", "--batch"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
    ) as git:
        if git.stdin is None or git.stdout is None:
            raise FailedError("cannot read the commit: git has no pipes")
        for mode, name, path in entries:
            git.stdin.write(f"{name}\n".encode())
            git.stdin.flush()
            _write(git.stdout, target / path, mode, source.committed_at_s)
        git.stdin.close()


def _tree(source: Source) -> Iterator[tuple[str, str, str]]:
    """Mode, blob and path of each file of the commit."""
    try:
        listed = _git(source.repo, "ls-tree", "-r", "-z", "--full-tree", f"{source.commit}:{source.folder}")
    except UsageError as error:
        raise UsageError(
            f"cannot build {source.ref!r}: it has no folder {source.folder!r}", "Build a ref that has it."
        ) from error
    files = dict(line.split("\t", 1)[::-1] for line in listed.split("\0")[:-1])
    for path, attributes in files.items():
        mode, kind, name = attributes.split()
        if {".", ".."} & set(path.split("/")) or any(str(above) in files for above in PurePosixPath(path).parents):
            raise UsageError(
                f"cannot build {source.ref!r}: {path!r} is no path that git would check out",
                "Somebody made this commit by hand: see `git ls-tree -r` and `git fsck`, and do not trust it.",
            )
        if kind != "blob":
            raise UsageError(
                f"cannot build {source.ref!r}: {path} is a submodule, and its files are not part of the commit",
                "Fetch it in a [build].run line, pinned to a commit or digest, or copy it into the repository.",
            )
        yield mode, name, path


def _write(blobs: IO[bytes], path: Path, mode: str, time_s: int) -> None:
    size = int(blobs.readline().split()[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "120000":
        path.symlink_to(os.fsdecode(_exactly(blobs, size)))
    else:
        with path.open("xb") as file:
            while size:
                chunk = _exactly(blobs, min(size, _CHUNK))
                file.write(chunk)
                size -= len(chunk)
        path.chmod(0o755 if mode == "100755" else 0o644)
        os.utime(path, (time_s, time_s))
    _exactly(blobs, 1)


def _exactly(blobs: IO[bytes], size: int) -> bytes:
    data = blobs.read(size)
    if len(data) < size:
        raise FailedError("cannot read the commit: git ended too early", "Check the repository with `git fsck`.")
    return data


def _is_dirty(repo: Path) -> bool:
    try:
        return bool(_git(repo, "status", "--porcelain", "--", "."))
    except UsageError:
        return False  # a bare repository has no work tree


def _git(repo: Path, *words: str) -> str:
    """What git prints; its refusal is a UsageError with its own words."""
    try:
        done = subprocess.run(_command(repo, *words), capture_output=True, check=False, env=_environment())
    except FileNotFoundError as error:
        raise FailedError("cannot build: git is not installed", "Install it: `apt install git`.") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().removeprefix("fatal: ") or "git refused"
        raise UsageError(f"cannot build {repo}: {said}", "Give the folder of an app in a git repository.")
    return os.fsdecode(done.stdout)


def _command(repo: Path, *words: str) -> list[str]:
    return ["git", "-C", str(repo), *words]


def _environment() -> dict[str, str]:
    """No GIT_* of the caller can turn git to another repository; replacements and hidden downloads are off."""
    kept = {name: value for name in ("PATH", "HOME") if (value := os.environ.get(name)) is not None}
    return {
        **kept,
        "LC_ALL": "C",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }
