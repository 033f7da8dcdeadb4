"""A worker that says it is ready, then does more than it may: starts processes, eats memory, writes elsewhere.

It is told to by a file: /tmp/fork, /tmp/eat, /tmp/stray.
"""

import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
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


def eat() -> int:
    """How the process that ate has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(int(len(b"x" * BYTES) != BYTES))
    return os.waitpid(pid, 0)[1]


def stray() -> str:
    """What became of writing, and of truncating a file that is there."""
    ways: tuple[Callable[[], object], ...] = (Path("/var/tmp/new").touch, partial(os.truncate, "/var/tmp/old", 0))
    said = []
    for way in ways:
        try:
            way()
        except OSError as error:
            said.append(errno.errorcode[error.errno or 0])
    return " ".join(said)


with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
    agent.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    for wish, grant in (("fork", fork), ("eat", eat), ("stray", stray)):
        file = Path("/tmp") / wish
        if file.exists():
            file.unlink()
            print(f"{wish}: {grant()}", flush=True)
    time.sleep(0.1)
