"""How a loop is told to stop: SIGTERM sets an event, the loop finishes what it has in hand."""

import signal
import threading


def stop_event() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop
