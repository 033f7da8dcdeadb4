"""`rollway init`: a first rollway.toml, from what the folder shows."""

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import rich_click as click

from agent.cli.output import remark, show
from agent.errors import RefusedError, UsageError
from agent.linux import atomic
from agent.settings.guess.app import EXAMPLES, FILE, Sketch, found, sketch
from agent.settings.guess.found import Tree

FILES_MAX: Final = 1000
FILE_BYTES_MAX: Final = 64 * 1024
DEPTH_MAX: Final = 4
_NOT_OURS: Final = frozenset({"node_modules", "vendor", "target", "venv", "env", "lib", "dist", "build", "__pycache__"})
_NAMED: Final = frozenset(
    {*EXAMPLES, "Procfile", "Gemfile", "config.ru", "puma.rb", "go.mod", "package.json", "package-lock.json"}
    | {"pnpm-lock.yaml", "yarn.lock", "requirements.txt", "pyproject.toml", "uv.lock", "Cargo.toml"}
)
_KINDS: Final = (".py", ".rb", ".go", ".js", ".rs")


@click.command("init")
@click.argument("path", default=".")
@click.option("--print", "prints", is_flag=True, help="Print it, write nothing.")
def command(path: str, *, prints: bool) -> None:
    """Write a rollway.toml for the app in PATH, from what is there; one that is there is never overwritten.

    Recognised are a Procfile, Django, Flask, FastAPI and their like, Rails and Rack, Node, Go and Rust. What it was
    recognised by, and what you should look at, is said. On a terminal you are asked what nothing shows.

    Examples: rollway init; rollway init --print
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UsageError(f"{path} is no folder", "Give the folder of an app.")
    file = folder / FILE
    if file.exists() and not prints:
        raise _there_is(file)
    tree = read_tree(folder)
    sketched = sketch(tree, folder.resolve().name, _asked(tree, prints=prints))
    if prints:
        show(sketched.text.rstrip("\n"))
    else:
        _write(file, sketched)
    for doubt in sketched.doubts:
        remark(f"look at it: {doubt}")


def _write(file: Path, sketched: Sketch) -> None:
    try:
        atomic.create_exclusive(file, sketched.text.encode(), 0o644)
    except FileExistsError:
        raise _there_is(file) from None
    show(f"{file} is written, from {sketched.seen}. Next: rollway check; rollway dev")


def _there_is(file: Path) -> RefusedError:
    return RefusedError(
        f"{file} is there already", "Correct it by hand; `rollway init --print` shows what it would be."
    )


def _asked(tree: Tree, *, prints: bool) -> str | None:
    """How it is started, from a person, where nothing else says so."""
    if prints or not (sys.stdin.isatty() and sys.stdout.isatty()) or found(tree) is not None:
        return None
    answer: str = click.prompt("Which command starts it", default="", show_default=False)
    return answer.strip() or None


def read_tree(folder: Path) -> Tree:
    """The files that say something about an app: a few, of a few levels, and their beginnings."""
    return {str(path.relative_to(folder)): _text(path) for path in itertools.islice(_interesting(folder), FILES_MAX)}


def _interesting(folder: Path) -> Iterator[Path]:
    for above, folders, files in os.walk(folder):
        depth = len(Path(above).relative_to(folder).parts)
        folders[:] = sorted(
            name for name in folders if name[0] != "." and name not in _NOT_OURS and depth < DEPTH_MAX - 1
        )
        for name in sorted(files):
            if name in _NAMED or name.endswith(_KINDS):
                yield Path(above, name)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX).decode(errors="replace")
    except OSError:
        return ""
