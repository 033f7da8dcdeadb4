"""A worker that writes numbered lines as fast as it may until it is told to end, and says then how many there were."""

import itertools
import signal
import sys
import time

TOLD: list[int] = []
signal.signal(signal.SIGTERM, lambda *_: TOLD.append(1))
for number in itertools.count():
    if TOLD:
        print("end", number, flush=True)
        sys.exit()
    print("line", number, flush=True)
    if number % 50 == 0:
        time.sleep(0.01)
