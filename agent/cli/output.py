"""How the command line speaks: answers on stdout, remarks and errors on stderr; JSON, tables or lines.

Rules: a terminal may get colours and tables, a pipe gets plain lines only, never an escape sequence; with `--json`
stdout is one JSON document, or one per line for streams, and nothing else, and an error is the last line of stderr.
Imports neither click nor rich by itself: the roles use it too.
"""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from agent.errors import RollwayError


def on_terminal() -> bool:
    """Whether stdout is a terminal that may be drawn on."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"


def show(line: str) -> None:
    """Write one line of the answer, at once, so that whoever reads a pipe sees it when it happens."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def remark(line: str) -> None:
    """Write a line beside the answer."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def show_json(value: object) -> None:
    show(msgspec.json.encode(value).decode())


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows under their columns' names; None is shown as `-`."""
    texts = [["-" if cell is None or cell == "" else str(cell) for cell in row] for row in rows]
    if not on_terminal():
        widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
        for row in (list(columns), *texts):
            show("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich import box, console, table  # noqa: PLC0415 - 30 ms that a pipe need not wait

    drawn = table.Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in texts:
        drawn.add_row(*row)
    console.Console(markup=False, highlight=False).print(drawn)


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


def time_of(seconds: int) -> str:
    """A moment given in seconds since 1970, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
