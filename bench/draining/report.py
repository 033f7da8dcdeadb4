"""What clients lost, by server and kind of client, as a table: failed requests per swap."""

from typing import Final

from msgspec import Struct

from bench.peers.machine import Machine

KINDS: Final = {
    "new": "new connection each",
    "kept": "keep-alive",
    "far": "keep-alive, 20 ms away",
    "proxy": "HAProxy, pool",
    "proxy, tries again": "HAProxy, pool, `retry-on`",
    "websocket": "WebSocket",
    "idle": "idle for longer than linger, 20 ms away",
}


class Cell(Struct, frozen=True):
    """One kind of client of one server."""

    asked: int
    failed: int
    reasons: list[str]
    """The first ones."""


class Row(Struct, frozen=True, kw_only=True):
    server: str
    notice: bool
    swaps: int
    seconds: float
    """That the load lasted."""
    cells: dict[str, Cell]
    """By kind; a kind that a server does not have is not in it."""


class Results(Struct, frozen=True, kw_only=True):
    machine: Machine
    versions: dict[str, str]
    linger_s: float
    rows: list[Row]


def markdown(results: Results) -> str:
    lines = [
        f"| server | notice | {' | '.join(KINDS.values())} | requests/s |",
        f"|---|---|{'--:|' * (len(KINDS) + 1)}",
    ]
    for row in results.rows:
        cells = " | ".join(_cell(row, kind) for kind in KINDS)
        rate = sum(cell.asked for cell in row.cells.values()) / row.seconds
        lines.append(f"| {row.server} | {'yes' if row.notice else 'no'} | {cells} | {rate:,.0f} |")
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    swaps = min((row.swaps for row in results.rows), default=0)
    how = f"all clients of a row at once; {swaps} swaps a row, linger {results.linger_s:g} s"
    lines += ["", f"Failed requests per swap, {how}. {versions}. {results.machine}."]
    return "\n".join(lines) + "\n"


def _cell(row: Row, kind: str) -> str:
    cell = row.cells.get(kind)
    if cell is None:
        return "-"
    return "0" if cell.failed == 0 else f"**{cell.failed / row.swaps:,.1f}**"
