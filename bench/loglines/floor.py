"""What the system calls of Rollway's way alone cost: its program's bytes through intake and journal, unread by anybody.

Each chunk is followed by as many blanks as records are longer than lines, so that as much is written as by the agent:
the limit that no supervisor can beat that keeps output in memory which outlives it.
"""

import os
import select
import shlex
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from agent.linux import fifo
from agent.linux.intake import Intake
from agent.linux.journal import APPEND_BYTES, Journal
from agent.linux.passage import PASSAGE_BYTES, Passage
from agent.supervisor.pipes import CHUNK_BYTES
from bench.loglines.numbers import LINE_BYTES

RECORD_BYTES = 261
"""A line of 100 bytes as the agent writes it for this app."""
BLANKS = memoryview(b" " * APPEND_BYTES + b"\n")


def main(program: str) -> None:
    reading, writing = os.pipe()
    for pipe in (writing, 1):
        fifo.enlarge(pipe, PASSAGE_BYTES)
    intake, journal, passage, used = Intake.create("intake"), Journal.create("journal"), Passage.create(), 0
    with subprocess.Popen(shlex.split(program), stdout=writing):
        os.close(writing)
        while _wait_for(reading, select.POLLIN) and _take(intake, reading):
            while data := intake.since(used):
                count = min(len(data), APPEND_BYTES * LINE_BYTES // RECORD_BYTES) // LINE_BYTES * LINE_BYTES
                if count == 0:
                    break
                room = journal.room[: count * RECORD_BYTES // LINE_BYTES]
                room[:count] = data[:count]
                room[count:] = BLANKS[-(len(room) - count) :]
                used += count
                journal.commit(len(room), b"")
                while left := journal.left(passage):
                    if not passage.level:
                        journal.hand_over(passage, left)
                    _wait_for(1, select.POLLOUT)
                    passage.send(1, left)
                journal.end_turn()
            intake.forget(used)


def _wait_for(pipe: int, event: int) -> bool:
    waiting = select.poll()
    waiting.register(pipe, event)
    return bool(waiting.poll())


def _take(intake: Intake, pipe: int) -> bool:
    """False at the end of the pipe."""
    before = intake.taken
    intake.take(pipe, CHUNK_BYTES)
    return intake.taken > before


if __name__ == "__main__":
    main(os.environ["PROGRAM"])
