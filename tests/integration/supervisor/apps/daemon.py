"""Leaves a daemon behind: forked twice, in a session of its own, holding stdout; then waits, or ends at once."""

import os
import signal
import sys
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("daemon", os.getpid(), flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
if "--leave" not in sys.argv:
    signal.pause()
