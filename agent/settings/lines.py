"""The line of each key in a TOML text that is known to parse. Never a wrong line: a key that is not certain has none.

No second parser: the text is cut into statements by asking tomli for the shortest run of whole lines that parses. That
cut is exact, since a statement that goes on over a line's end lacks a closing quote or bracket until its last line.
"""

from collections.abc import Iterator
from typing import Final

import tomli

_STATEMENT_LINES: Final = 64
_DEPTH: Final = 16


def key_lines(text: str) -> dict[tuple[str | int, ...], int]:
    """Line of each key path: of its own table header or statement, else of the first line that mentions it."""
    found: dict[tuple[str | int, ...], int] = {}
    header: tuple[str, ...] | None = ()
    for line, statement, parsed in _statements(text):
        if statement.lstrip().startswith("["):
            names = tuple(_chain(parsed))
            header = None if _is_array(statement) else names
            for depth in range(1, len(names)):
                found.setdefault(names[:depth], line)
            if header is None:
                found.setdefault(names, line)
            else:
                found[names] = line
        elif header is not None:
            deep = _DEPTH if "\n" not in statement else 1
            for path in _paths(parsed, deep):
                found.setdefault(header + path, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, object]]]:
    """Each statement with its first line, until one is too long to be cut cheaply."""
    pending: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        pending.append(line)
        statement = "\n".join(pending)
        try:
            parsed: dict[str, object] = tomli.loads(statement)
        except (ValueError, RecursionError):
            if len(pending) == _STATEMENT_LINES:
                return
            continue
        if parsed:
            yield number - len(pending) + 1, statement, parsed
        pending = []


def _is_array(statement: str) -> bool:
    return statement.lstrip().startswith("[[")


def _chain(parsed: object) -> Iterator[str]:
    """The names of a header: tables of one key each, the last one empty."""
    while isinstance(parsed, dict) and parsed:
        name, parsed = next(iter(parsed.items()))
        yield name


def _paths(parsed: dict[str, object], depth: int) -> Iterator[tuple[str, ...]]:
    for key, value in parsed.items():
        yield (key,)
        if isinstance(value, dict) and depth > 1:
            yield from ((key, *path) for path in _paths(value, depth - 1))
