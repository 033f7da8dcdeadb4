"""The supervised program: on the word of the bench, numbered lines to stdout as fast as it takes them; then it waits.

Words: the FIFO on which the word comes, how many lines, of which kind, and the core to run on (supervisors that are
bound to a core have children on it otherwise).
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.loglines.numbers import Lines


def main(go: str, lines: str, kind: str, core: str) -> None:
    os.sched_setaffinity(0, {int(core)})
    made = Lines(kind)
    with Path(go).open("rb") as word:
        word.read(1)
    for block in made.blocks(int(lines)):
        left = memoryview(block)
        while left:
            left = left[os.write(1, left) :]
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
