"""A worker that waits until it is to eat memory (/tmp/eat) or to start processes (/tmp/fork), more than it may."""

import os
import signal
import time
from pathlib import Path

BYTES = 512 << 20
PROCESSES = 1_000


def fork() -> int:
    """How many processes could be started."""
    started: list[int] = []
    try:
        while len(started) < PROCESSES:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            started.append(pid)
    except BlockingIOError:
        pass
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(started)


while True:
    for wish in (Path("/tmp/eat"), Path("/tmp/fork")):
        if wish.exists():
            wish.unlink()
            print("forks:", fork() if wish.name == "fork" else len(b"x" * BYTES), flush=True)
    time.sleep(0.1)
