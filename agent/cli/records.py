"""Log records as they come from a coordinator: what they are, and each as one line for a person.

Rules: an app's output is not trusted: no control character of it reaches the terminal.
"""

from typing import Final

import msgspec
from msgspec import Struct

_KNOWN: Final = frozenset({"ts", "host", "instance", "app", "env", "release", "process", "pid", "stream", "message"})


class Record(Struct, frozen=True):
    """One log record, or a word of the coordinator about a host's records: it has a host and an `error`, no `ts`."""

    fields: dict[str, object]

    def text(self, field: str) -> str:
        """A field as text; empty where the record has none."""
        value = self.fields.get(field)
        return "" if value is None else str(value)

    @property
    def trouble(self) -> str:
        """Why there are no records of a host; empty in every other record."""
        return self.text("error") if self.fields.keys() <= {"host", "error"} else ""


def read_record(line: bytes) -> Record | None:
    """None where it is none."""
    try:
        return Record(msgspec.json.decode(line, type=dict[str, object]))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def in_words(record: Record) -> str:
    """When, where, what."""
    rest = " ".join(f"{key}={value}" for key, value in record.fields.items() if key not in _KNOWN)
    parts = (record.text("ts")[11:23], *map(record.text, ("host", "instance", "message")), rest)
    return printable(" ".join(part for part in parts if part))


def printable(text: str) -> str:
    """`text` without what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)
