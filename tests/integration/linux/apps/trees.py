"""Trees of processes as apps make them, and worse: each process says its number, ignores SIGTERM and stays."""

import os
import signal
import subprocess
import sys
import time

BOMB_MOST = 150
HOPS_MOST = 400


def stay() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, f"{os.getpid()}\n".encode())
    time.sleep(600)


def wrapper() -> None:
    """As `npm start` does: shells that wait for a program, which has workers."""
    inner = f"{sys.executable} {__file__} workers; true"
    line = f'echo $$; sh -c "echo \\$\\$; {inner}"; true'
    os.execv("/bin/sh", ["sh", "-c", line])  # noqa: S606 - it is a shell


def workers() -> None:
    for _ in range(2):
        if os.fork() == 0:
            stay()
    stay()


def runner() -> None:
    """As `uv run` does: a parent that passes nothing on and waits."""
    os.write(1, f"{os.getpid()}\n".encode())
    subprocess.run([sys.executable, __file__, "workers"], check=False)


def daemon() -> None:
    """Two forks and a session of its own; the grandchild has a child that does the same."""
    for depth in range(2):
        if os.fork() == 0:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
            if depth == 1:
                stay()
        else:
            os.wait()
            stay()


def session() -> None:
    """A child with a session and a group of its own, its parent alive."""
    if os.fork() == 0:
        os.setsid()
    stay()


def bomb() -> None:
    """Every process forks as fast as it can, up to a number that leaves the machine alive."""
    counter = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.write(1, f"{os.getpid()}\n".encode())
    while os.write(counter, b".") and os.fstat(counter).st_size < BOMB_MOST:
        os.fork()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def hopper() -> None:
    """A process that is another one at each look: it leaves its work to a child again and again, then stays."""
    if os.fork() == 0:
        os.setsid()
        os.write(1, f"{os.getpid()}\n".encode())
        for _ in range(HOPS_MOST):
            time.sleep(0.005)
            if os.fork() != 0:
                os._exit(0)
    stay()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
