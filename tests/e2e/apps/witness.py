"""A command that somebody watches: tells of its terminal and of the signals it gets; heeds those that are named."""

import os
import signal
import sys


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # a buffer must not be written by a handler while it is written


def size(*_: object) -> None:
    say("size {1}x{0}".format(*os.get_terminal_size(0)))


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    if number.name not in sys.argv:
        signal.signal(number, lambda number, _: say(f"got {signal.Signals(number).name}"))
signal.signal(signal.SIGWINCH, size)
say(f"pid {os.getpid()} terminals {[os.isatty(fd) for fd in range(3)]} leads {os.getsid(0) == os.getpid()}")
if os.isatty(0):
    size()
    say(f"foreground {os.tcgetpgrp(0) == os.getpid()} {os.ttyname(0) == os.ttyname(1)}")
while True:
    signal.pause()
