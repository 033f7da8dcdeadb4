"""The drain bench's own arithmetic, and that the document shows what was measured."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Final

import msgspec

from bench.draining.report import Cell, Results, Row, markdown
from bench.peers.machine import Machine

ROOT: Final = Path(__file__).parents[3]
DOCUMENT: Final = (ROOT / "docs" / "zero-downtime.md").read_text()
MACHINE: Final = Machine(processor="one", cores=2, kernel="Linux", python="3.11")


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_a_cell_says_how_many_fail_at_each_swap() -> None:
    """Failures are divided by swaps; none is a plain 0, a kind that the server does not have a dash."""
    cells = {"new": Cell(900, 0, []), "kept": Cell(100, 3, ["reset"])}
    row = Row(server="s", notice=True, swaps=2, seconds=10, cells=cells)
    table = markdown(Results(machine=MACHINE, versions={"s": "1.0"}, linger_s=2, rows=[row]))
    assert "| s | yes | 0 | **1.5** | - | - | - | - | - | 100 |" in table
    assert "2 swaps a row, linger 2 s. s 1.0." in table


def test_the_document_has_the_table_that_was_measured() -> None:
    """docs/zero-downtime.md shows the table of the last kept run, word for word; and that is what its figures say."""
    kept = (ROOT / "bench" / "results" / "drain.md").read_text()
    assert kept.strip() in DOCUMENT
    figures = msgspec.json.decode((ROOT / "bench" / "results" / "drain.json").read_bytes(), type=Results)
    assert markdown(figures) == kept


def test_with_the_notice_the_document_claims_no_more_than_was_measured() -> None:
    """With the notice no client has lost anything but who was idle for too long, on servers that take a socket."""
    figures = msgspec.json.decode((ROOT / "bench" / "results" / "drain.json").read_bytes(), type=Results)
    told = [row for row in figures.rows if row.notice and "bind" not in row.server]
    assert len(told) == 6
    assert {
        (row.server, kind): cell.reasons
        for row in told
        for kind, cell in row.cells.items()
        if cell.failed and kind != "idle"
    } == {}


def test_what_the_document_gives_to_copy_can_be_read() -> None:
    """Python and TOML to copy are whole."""
    assert len(snippets("python")) >= 5
    for text in snippets("python"):
        ast.parse(text)
    for text in snippets("toml"):
        tomllib.loads(text)
