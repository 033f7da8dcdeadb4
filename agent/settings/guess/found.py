"""What was found in an app's folder: the parts of a rollway.toml, and what a person is to be told about them."""

from collections.abc import Mapping
from typing import Final

import msgspec
import tomli
from msgspec import Struct

Tree = Mapping[str, str]
"""The files that were looked at: path inside the folder, text."""

ADDRESS: Final = "0.0.0.0:8080"


class Command(Struct, frozen=True, kw_only=True):
    """A process type. `listens`: by a socket that it is handed, by a port that it binds itself, or not at all."""

    name: str
    command: str
    shell: bool = False
    listens: str = ""
    """"fd", "port" or nothing."""
    address: str = ADDRESS
    note: str = ""
    """Why it is so, for the file."""


class Found(Struct, frozen=True, kw_only=True):
    """`seen` says by what it was recognised, `doubts` what a person should look at."""

    commands: tuple[Command, ...] = ()
    build: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    release: str | None = None
    seen: str = ""
    doubts: tuple[str, ...] = ()
    name: str | None = None
    """What the app calls itself."""


def table(value: object, *keys: str) -> dict[str, object]:
    """The table below `keys` of something parsed; empty where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def text_of(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def parsed_toml(tree: Tree, path: str) -> dict[str, object]:
    """A TOML file as far as it can be read: what is wrong with it is not ours to say."""
    try:
        return tomli.loads(tree.get(path, ""))
    except tomli.TOMLDecodeError:
        return {}


def parsed_json(tree: Tree, path: str) -> dict[str, object]:
    try:
        return table(msgspec.json.decode(tree.get(path, "")))
    except (msgspec.DecodeError, RecursionError):
        return {}


def folders(tree: Tree) -> set[str]:
    """The folders at the top."""
    return {path.partition("/")[0] for path in tree if "/" in path}


def left_out(tree: Tree) -> tuple[str, ...]:
    """What a build may leave out."""
    return tuple(f"{name}/" for name in ("tests", "test", "spec") if name in folders(tree))
