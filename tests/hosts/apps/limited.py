"""A worker that says it is ready, then starts processes (/tmp/fork) or eats memory (/tmp/eat), more than it may."""

import os
import signal
import socket
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


def eat() -> int:
    """How the process that ate has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(int(len(b"x" * BYTES) != BYTES))
    return os.waitpid(pid, 0)[1]


with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
    agent.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    for wish, grant in (("fork", fork), ("eat", eat)):
        file = Path("/tmp") / wish
        if file.exists():
            file.unlink()
            print(f"{wish}: {grant()}", flush=True)
    time.sleep(0.1)
