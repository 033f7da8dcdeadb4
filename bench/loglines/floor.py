"""What the system calls of Rollway's way alone cost: its program's bytes through intake and journal, unread by anybody.

Each chunk is followed by as many blanks as records are longer than lines, so that as much is written as by the agent:
the limit that no supervisor can beat that keeps output in memory which outlives it.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from agent.linux import fifo, memfd
from agent.linux.journal import Journal
from agent.supervisor.pipes import CHUNK_BYTES
from bench.loglines.numbers import LINE_BYTES

RECORD_BYTES = 261
"""A line of 100 bytes as the agent writes it for this app."""


def main(program: str) -> None:
    reading, writing = os.pipe()
    for pipe in (writing, 1):
        fifo.enlarge(pipe)
    intake, journal, rest = memfd.create("intake"), Journal.create("journal"), b""
    with subprocess.Popen(shlex.split(program), stdout=writing):
        os.close(writing)
        while count := os.splice(reading, intake, CHUNK_BYTES):
            taken = memfd.position(intake)
            chunk = rest + os.pread(intake, count, taken - count)
            lines, _, rest = chunk.rpartition(b"\n")
            blanks = b" " * (len(lines) * (RECORD_BYTES - LINE_BYTES) // LINE_BYTES)
            journal.append((lines, b"\n", blanks, b"\n"), b"")
            while journal.unsent:
                journal.send(1, journal.unsent)
            memfd.forget(intake, memfd.page_floor(taken - count), memfd.page_floor(taken))


if __name__ == "__main__":
    main(os.environ["PROGRAM"])
