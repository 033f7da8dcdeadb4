"""TOML tables walked by hand, so that every error names file, line, key path, what was expected, what was found.

A `Schema` lists every key that this version obeys and every key that is only planned; `read_toml` refuses all others
before any value is looked at. A loader then takes values by key and kind; taking a key that the schema lacks is a bug,
not an error, so that the schema is always the whole truth.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final, TypeVar

import tomli

from agent.errors import SettingsError, invariant
from agent.settings.kinds import Kind, WrongValueError
from agent.settings.lines import key_lines
from agent.settings.source import MISSING, KeyPath, Source, show_text, show_value

T = TypeVar("T")
Pattern = tuple[str, ...]
NOT_SUPPORTED: Final = "which is not supported by this version of Rollway"
_LISTED_KEYS: Final = 12


class Schema:
    """Key paths by table: `{"process.*.stop": "linger signal grace"}`; `*` is any name, `a|b` is one of two."""

    def __init__(self, known: Mapping[str, str], planned: Mapping[str, str]) -> None:
        self.known = _patterns(known)
        self.planned = _patterns(planned)

    def knows(self, path: KeyPath) -> bool:
        """Whether `path` is a key, or a table of keys, that this version obeys."""
        return _covered(path, self.known)

    def plans(self, path: KeyPath) -> bool:
        return _covered(path, self.planned)

    def names_in(self, table: KeyPath) -> list[str]:
        """The keys that `table` can have, where they have fixed names."""
        inner = (pattern[len(table)] for pattern in self.known if len(pattern) > len(table) and matches(table, pattern))
        return sorted({name for names in inner for name in names.split("|") if name != "*"})

    def has_tables_in(self, path: KeyPath) -> bool:
        return any(len(pattern) > len(path) and matches(path, pattern) for pattern in self.known)


class Table:
    """One table of a file, or an absent one, which is as an empty one; values are taken by key and kind."""

    def __init__(self, source: Source, schema: Schema, path: KeyPath, values: Mapping[str, object]) -> None:
        self.source, self.path = source, path
        self._schema, self._values = schema, values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def has_table(self, key: str) -> bool:
        return isinstance(self._values.get(key), dict)

    def get(self, key: str, kind: Kind[T], default: T) -> T:
        """The value of `key`, or `default` where the file does not have it."""
        return self.need(key, kind) if key in self._values else default

    def find(self, key: str, kind: Kind[T]) -> T | None:
        """The value of `key`, or None where the file does not have it."""
        return self.need(key, kind) if key in self._values else None

    def need(self, key: str, kind: Kind[T]) -> T:
        """The value of a key that must be there."""
        path = (*self.path, key)
        invariant(self._schema.knows(path), f"{path} is taken but not in the schema")
        if key not in self._values:
            raise self.source.error(path, kind.expected, MISSING)
        try:
            return kind.read(self._values[key])
        except WrongValueError as wrong:
            raise self.source.error((*path, *wrong.at), wrong.expected, wrong.found) from None

    def table(self, key: str) -> "Table":
        """The table `key`; an empty one where the file does not have it."""
        path = (*self.path, key)
        invariant(self._schema.has_tables_in(path), f"{path} is taken as a table but is none in the schema")
        value = self._values.get(key, {})
        if not isinstance(value, dict):
            raise self.source.error(path, "a table", show_value(value))
        return Table(self.source, self._schema, path, value)

    def tables(self, name: Kind[str]) -> Iterator[tuple[str, "Table"]]:
        """The tables in this one by their names, each of which must be a `name`."""
        for key in self._names(name):
            yield key, self.table(key)

    def items(self, name: Kind[str], kind: Kind[T]) -> Iterator[tuple[str, T]]:
        """The values in this table by their names, each of which must be a `name`."""
        for key in self._names(name):
            yield key, self.need(key, kind)

    def error(self, key: str, expected: str, found: str) -> SettingsError:
        return self.source.error((*self.path, key), expected, found)

    def _names(self, name: Kind[str]) -> Iterator[str]:
        for key in self._values:
            try:
                name.read(key)
            except WrongValueError as wrong:
                raise self.error(key, wrong.expected, wrong.found) from None
            yield key


def read_toml(text: str, file: str, schema: Schema) -> Table:
    """The root table of a file whose keys are all known. Raises SettingsError."""
    try:
        values: dict[str, object] = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise SettingsError(file, "", "TOML", f"a mistake: {error.msg}, column {error.colno}", error.lineno) from None
    except (ValueError, RecursionError):
        raise SettingsError(file, "", "TOML", "a number or a nesting too large to be read") from None
    lines = cache(lambda: key_lines(text))
    source = Source(file, lambda path: lines().get(path))
    _check_keys(source, schema, (), values)
    return Table(source, schema, (), values)


def matches(path: KeyPath, pattern: Pattern) -> bool:
    """Whether `path` is the beginning, or the whole, of a path that `pattern` spells."""
    return len(path) <= len(pattern) and all(
        names == "*" or key in names.split("|") for key, names in zip(path, pattern, strict=False)
    )


def _patterns(keys: Mapping[str, str]) -> tuple[Pattern, ...]:
    return tuple((*filter(None, table.split(".")), key) for table, line in keys.items() for key in line.split())


def _covered(path: KeyPath, patterns: tuple[Pattern, ...]) -> bool:
    return any(matches(path, pattern) for pattern in patterns)


def _check_keys(source: Source, schema: Schema, table: KeyPath, values: Mapping[str, object]) -> None:
    for key, value in values.items():
        path = (*table, key)
        if not schema.knows(path):
            raise _unknown(source, schema, path)
        if isinstance(value, dict) and schema.has_tables_in(path):
            _check_keys(source, schema, path, value)


def _unknown(source: Source, schema: Schema, path: KeyPath) -> SettingsError:
    key = str(path[-1])
    if schema.plans(path):
        return source.error(path, "keys that this version obeys", f"{show_text(key)}, {NOT_SUPPORTED}")
    names = schema.names_in(path[:-1])
    from difflib import get_close_matches  # noqa: PLC0415 - a role whose settings are right needs none of it

    near = get_close_matches(key, names, n=1)
    known = f'"{near[0]}"' if near else f"one of {', '.join(names)}"
    return source.error(path, f"a known key, perhaps {known}" if near else known, f"the unknown key {show_text(key)}")
