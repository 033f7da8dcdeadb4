"""A singleton that says when it lived: each process writes CLOCK_BOOTTIME into a file of its own, again and again.

Its child has left the session by two forks and ignores the stop signal: only the end of the whole tree ends it.
"""

import os
import pathlib
import signal
import time

BEATS = pathlib.Path("/var/lib/beats")


def beat(name: str) -> None:
    with (BEATS / f"{name}-{os.getpid()}").open("a") as file:
        while True:
            file.write(f"{time.clock_gettime_ns(time.CLOCK_BOOTTIME)}\n")
            file.flush()
            time.sleep(0.02)


if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        beat("child")
    os._exit(0)
beat("main")
