"""The log bench's own arithmetic: whether it would see a lost and a doubled line, and what it says of speeds."""

import json

import pytest

from bench.loglines.numbers import BLOCK_LINES, KINDS, LINE_BYTES, Lines, Tally
from bench.loglines.race import Run
from bench.loglines.report import rows
from bench.peers.gauge import Memory

COUNT = 3 * BLOCK_LINES


def wrapped(line: bytes) -> bytes:
    return json.dumps({"ts": "2025-12-09T10:30:00.123Z", "message": line.decode()}).encode() + b"\n"


def counted(records: list[bytes], cut: int = 70_001) -> tuple[int, int, int]:
    tally, data = Tally(), b"".join(records)
    for start in range(0, len(data), cut):
        tally.feed(data[start : start + cut])
    tally.end()
    return tally.next, tally.lost, tally.wrong


@pytest.fixture(params=KINDS)
def lines(request: pytest.FixtureRequest) -> list[bytes]:
    """Lines as a program writes them, without newlines."""
    data = b"".join(Lines(request.param).blocks(COUNT))
    assert len(data) == COUNT * LINE_BYTES
    return data.splitlines()


def test_lines_that_all_arrive_are_counted_raw_and_wrapped(lines: list[bytes]) -> None:
    """However a supervisor writes them, and however they are read, nothing is lost and nothing wrong."""
    raw = [line + b"\n" for line in lines]
    for records in (raw, list(map(wrapped, lines)), [b"an event of the agent\n", *map(wrapped, lines)]):
        assert counted(records) == (COUNT, 0, 0)
        assert counted(records, cut=777) == (COUNT, 0, 0)


def test_what_is_not_as_written_is_seen(lines: list[bytes]) -> None:
    """A line left out, one that comes twice, and two that changed places."""
    records = list(map(wrapped, lines))
    assert counted([*records[:1500], *records[1501:]]) == (COUNT, 1, 0)
    assert counted([*records[:1500], records[1499], *records[1500:]]) == (COUNT, 0, 1)
    assert counted([*records[:1500], records[1501], records[1500], *records[1502:]]) == (COUNT, 1, 1)
    assert counted(records[:-2]) == (COUNT - 2, 0, 0)


def test_ratios_are_ours_over_the_peers_and_the_best_comes_first() -> None:
    """Medians of all rounds are compared: one slow round changes nothing."""

    def ran(cpu_s: float) -> Run:
        memory = Memory(1, 1, 1)
        return Run(
            lines=100,
            arrived=100,
            lost=0,
            wrong=0,
            wall_s=2 * cpu_s,
            cpu_s=cpu_s,
            start=memory,
            most=memory,
            end=memory,
        )

    runs = {"s6-log": [ran(4.0), ran(4.0), ran(90.0)], "rollway": [ran(1.0), ran(30.0), ran(1.0)]}
    ours, peer = rows(runs, dict.fromkeys(runs, ("1", "a file")))
    assert (ours.name, ours.per_cpu_s, ours.per_cpu_ratio, ours.goal) == ("rollway", 100.0, None, None)
    assert (peer.name, peer.per_cpu_ratio, peer.per_wall_ratio, peer.goal) == ("s6-log", 4.0, 4.0, 2.0)
    assert peer.memory_end == 2
