"""Where a setting stands: the file, the key path, the line; and the one place that words a `SettingsError`.

A line is told only when it is certain. Keys are paths of strings (tables) and integers (places in a list).
"""

import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from agent.errors import SettingsError

KeyPath = tuple[str | int, ...]
MISSING: Final = "nothing"
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN: Final = 60


class Source(Struct, frozen=True):
    """A file's name for people, and how to find the line of a key in it."""

    file: str
    locate: Callable[[KeyPath], int | None]

    def error(self, path: KeyPath, expected: str, found: str) -> SettingsError:
        """The error at `path`; for a missing key the line is that of the table that lacks it."""
        end = len(path) - 1 if found == MISSING else len(path)
        while end and isinstance(path[end - 1], int):
            end -= 1
        return SettingsError(self.file, show_path(path), expected, found, self.locate(path[:end]))


def show_path(path: KeyPath) -> str:
    """`process.web.listen[0]`; a key is quoted where TOML would have to."""
    shown = "".join(f"[{key}]" if isinstance(key, int) else f".{_show_key(key)}" for key in path)
    return shown.removeprefix(".")


def show_value(value: object) -> str:
    """A value as the file has it, bounded; tables and lists by their kind."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return show_text(value)
        case int() | float():
            return _bounded(str(value))
        case dict():
            return "a table"
        case list():
            return "a list" if value else "an empty list"
        case _:
            return f"the {type(value).__name__} {value}"


def show_text(text: str) -> str:
    escaped = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[: _SHOWN + 1])
    return f'"{_bounded(escaped)}"'


def _show_key(key: str) -> str:
    return _bounded(key) if _BARE.fullmatch(key) else show_text(key)


def _bounded(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
