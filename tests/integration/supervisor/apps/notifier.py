"""A worker that says by sd_notify what its arguments say, one after another, and then waits.

`until FILE` waits for a file, `child TEXT` says it in a process of its own, `barrier` waits until all of it was heard,
`flood` says something new for ever, `exit` ends. A comma stands for a newline.
"""

import array
import itertools
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

WORDS = iter(sys.argv[1:])


def say(text: str, *fds: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sock.sendmsg([text.replace(",", "\n").encode()], rights, 0, os.environ["NOTIFY_SOCKET"])


def barrier() -> None:
    ours, theirs = os.pipe()
    say("BARRIER=1", theirs)
    os.close(theirs)
    poll = select.poll()
    poll.register(ours, 0)
    poll.poll()


def child(text: str) -> None:
    if os.fork() == 0:
        say(text)
        barrier()
        os._exit(0)
    os.wait()


for word in WORDS:
    if word == "until":
        path = Path(next(WORDS))
        while not path.exists():
            time.sleep(0.01)
    elif word == "child":
        child(next(WORDS))
    elif word == "barrier":
        barrier()
    elif word == "flood":
        for number in itertools.count():
            say(f"STATUS=number {number},WATCHDOG=1")
    elif word == "exit":
        sys.exit(1)
    else:
        say(word)
    print("said", word, flush=True)
signal.pause()
