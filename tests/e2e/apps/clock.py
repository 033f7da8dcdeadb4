"""A background process that says a line now and then, and ends at SIGTERM."""

import signal
import threading

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
while not stop.wait(0.2):
    print("tick", flush=True)
