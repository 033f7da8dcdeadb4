"""Where the figures of a bench are kept: as JSON for programs, as a table for people."""

from pathlib import Path
from typing import Final

import msgspec

RESULTS: Final = Path(__file__).parents[1] / "results"


def show(results: msgspec.Struct, table: str, out: str | None) -> None:
    """Print the table; under the name `out` keep both."""
    print(f"\n{table}")
    if out:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{out}.md").write_text(table)
        (RESULTS / f"{out}.json").write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
