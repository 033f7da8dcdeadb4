"""Log lines from a program through its supervisor: how many a second, beside other supervisors in one run.

The program writes numbered lines of 100 bytes as fast as its pipe takes them; each supervisor delivers them where it is
meant to (`loglines/contestants.py`), alone on one core, and every number is looked for where it comes out. Peers are
fetched into a cache folder (`peers/setup.py`); one that cannot be had is named. Results: `results/logs.json`, `.md`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.loglines import contestants, numbers, race, report
from bench.loglines.contestants import Contestant
from bench.peers import setup
from bench.peers.machine import machine
from bench.peers.results import show

MEMORY_FILES: Final = Path("/dev/shm")  # noqa: S108 - files of gigabytes are to be no disk's matter
RECORD_BYTES_MOST: Final = 320
Entry = tuple[Contestant, Path]


def options() -> argparse.Namespace:
    names = [report.US, report.LIMIT, *contestants.PEERS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lines", type=int, default=1_000_000, help="in each run; rounded down to thousands")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=numbers.KINDS, default="plain", help="what the lines hold")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--net", help="addresses for `rollway up`, as there")
    parser.add_argument("--out", help="write bench/results/OUT.json and .md; `logs` where all take part")
    given = parser.parse_args()
    if given.out is None and given.only == names:
        given.out = "logs"
    given.lines = min(given.lines, numbers.LINES_MAX) // numbers.BLOCK_LINES * numbers.BLOCK_LINES
    return given


def entries(given: argparse.Namespace, top: Path, reader: int, stack: ExitStack) -> tuple[list[Entry], dict[str, str]]:
    """Everything that takes part, each with a folder of its own; and what does not, and why."""
    found: list[Entry] = []
    missing: dict[str, str] = {}
    room = shutil.disk_usage(top).free
    for name in given.only:
        folder = top / name
        folder.mkdir()
        words = race.words_of_writer(folder, given.lines, given.kind, reader)
        if name == report.US:
            found.append((stack.enter_context(contestants.rollway(folder, words, given.net)), folder))
            continue
        if name == report.LIMIT:
            found.append((contestants.floor(words), folder))
            continue
        if given.lines * RECORD_BYTES_MOST > room:
            missing[name] = f"its files would need {given.lines * RECORD_BYTES_MOST >> 30} GiB of {top}"
            continue
        try:
            peer = setup.have(contestants.PACKAGES[name])
        except (OSError, subprocess.CalledProcessError) as error:
            missing[name] = f"cannot be had here: {error}"
            continue
        found.append((contestants.PEERS[name](folder, peer, words), folder))
    return found, missing


def main() -> None:
    given = options()
    cores = sorted(os.sched_getaffinity(0))
    supervisor, reader = cores[0], cores[-1]
    if supervisor == reader:
        print("There is one core only: program and reader share it with the supervisor.")
    where = MEMORY_FILES if os.access(MEMORY_FILES, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="rollway-bench-", dir=where) as top, ExitStack() as stack:
        found, missing = entries(given, Path(top), reader, stack)
        os.sched_setaffinity(0, {reader})
        runs: dict[str, list[race.Run]] = {one.name: [] for one, _ in found}
        for number in range(given.rounds):
            for one, folder in found:
                runs[one.name].append(race.run(one, folder, given.lines, supervisor))
                last = runs[one.name][-1]
                print(
                    f"round {number + 1}: {one.name:<12}{last.per_cpu_s:>12,.0f} lines/s of CPU"
                    f"{last.per_wall_s:>12,.0f} of wall, lost {last.lost}, wrong {last.wrong}",
                    flush=True,
                )
    about = {one.name: (one.version, one.sink) for one, _ in found}
    results = report.Results(
        machine=machine(),
        lines=given.lines,
        kind=given.kind,
        rounds=given.rounds,
        rows=report.rows(runs, about),
        missing=missing,
    )
    show(results, report.markdown(results), given.out)


if __name__ == "__main__":
    main()
