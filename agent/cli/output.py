"""How the command line speaks: answers on stdout, remarks and errors on stderr; JSON, tables or lines.

Rules: a terminal may get colours and tables, a pipe gets plain lines only, never an escape sequence; with `--json`
stdout is one JSON document, or one per line for streams, and nothing else, and an error is the last line of stderr.
Imports neither click nor rich by itself: the roles use it too.
"""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from agent.errors import RollwayError

_BOLD: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"
_GAP: Final = "  "
_WIDTH_MIN: Final = 40


def on_terminal() -> bool:
    """Whether stdout is a terminal that may be drawn on."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"


def show(line: str) -> None:
    """Write one line of the answer, at once, so that whoever reads a pipe sees it when it happens."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def show_text(line: str) -> None:
    """Write a sentence of the answer; on a terminal it is broken between words."""
    for part in wrap(line, shutil.get_terminal_size().columns, "") if on_terminal() else (line,):
        show(part)


def remark(line: str) -> None:
    """Write a line beside the answer."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def show_json(value: object) -> None:
    show(msgspec.json.encode(value).decode())


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows under their columns' names; None is shown as `-`."""
    live = on_terminal()
    for number, line in enumerate(table(columns, rows, width=shutil.get_terminal_size().columns if live else None)):
        show(f"{_BOLD}{line}{_PLAIN}" if live and number == 0 else line)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], width: int | None) -> Iterator[str]:
    """Give a table's lines. Too wide for `width`, it loses empty columns, then the widest go below their rows."""
    texts = [["-" if cell is None or cell == "" else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    empty = [all(row[n] == "-" for row in texts) for n in range(len(columns))]
    beside = list(range(len(columns)))
    while width is not None and len(beside) > 1 and sum(widths[n] + len(_GAP) for n in beside) - len(_GAP) > width:
        beside.remove(max(beside[1:], key=lambda n: (empty[n], widths[n], n)))
    for row in (columns, *texts):
        yield _GAP.join(row[n].ljust(widths[n]) for n in beside).rstrip()
        for n, cell in enumerate(row):
            if width is not None and n not in beside and cell not in ("-", columns[n]):
                label = f"    {columns[n].lower()}: "
                yield from wrap(cell, width, label)


def wrap(text: str, width: int, label: str) -> list[str]:
    """`text` after its label, in lines of at most `width`."""
    indent = " " * 6 if label else "  "
    return textwrap.wrap(text, max(width, _WIDTH_MIN), initial_indent=label, subsequent_indent=indent)


def words(state: str) -> str:
    """A state as a person reads it."""
    return state.replace("_", " ")


def wants_json(line: Sequence[str]) -> bool:
    """Whether a command line asks for JSON; what comes behind `--` is somebody else's words."""
    return "--json" in line[: line.index("--") if "--" in line else None]


def show_error(error: RollwayError, *, as_json: bool) -> int:
    """Say what went wrong and what to do; gives the exit code."""
    if as_json:
        shape = {"error": error.error, "what_to_do": error.what_to_do, "code": error.exit_code}
        remark(msgspec.json.encode(shape).decode())
    else:
        remark(f"rollway: {error.error}")
        if error.what_to_do:
            remark(f"  {error.what_to_do}")
    return error.exit_code


def quoted(value: str) -> str:
    """A config value on one line: as it is, or as a .env file would write it where it has more than one line."""
    if value.isprintable():
        return value
    return msgspec.json.encode(value).decode()
