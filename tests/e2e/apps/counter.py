"""A worker that writes numbered lines as fast as it may until it is told to end, and says then how many there were.

Its argument is a file of which it makes one line of its own, so that no start of it goes unseen.
"""

import itertools
import os
import signal
import sys
import time
from pathlib import Path

with Path(sys.argv[1]).open("a") as starts:
    starts.write(f"{os.getpid()}\n")
TOLD: list[int] = []
signal.signal(signal.SIGTERM, lambda *_: TOLD.append(1))
for number in itertools.count():
    if TOLD:
        print("end", number, flush=True)
        sys.exit()
    print("line", number, flush=True)
    if number % 50 == 0:
        time.sleep(0.01)
