"""The command of a probe that does what its first word says; the second is a file to which it writes its numbers.

hang: forks, leaves its session and its marks, heeds no SIGTERM and never ends. flood: writes for ever. chatter: writes
a megabyte, then all is well. look: what it sees of itself. speak: by the instance's own socket.
"""

import os
import signal
import socket
import sys
from pathlib import Path

WHAT, FILE = sys.argv[1:]


def note(*words: object) -> None:
    with Path(FILE).open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


if WHAT == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note(os.getpid())
    else:
        note(os.getpid())
    signal.pause()
elif WHAT == "flood":
    while True:
        os.write(1, b"more \x1b[31m and more\n" * 4_000)
elif WHAT == "chatter":
    os.write(2, b"x" * 1_000_000)
elif WHAT == "look":
    fds = [fd for fd in range(100) if Path(f"/proc/self/fd/{fd}").exists()]
    seen = {"env": dict(os.environ), "cwd": str(Path.cwd()), "umask": os.umask(0), "fds": fds, "uid": os.getuid()}
    note(repr(seen))
elif WHAT == "speak":
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"STOPPING=1", os.environ["TMPDIR"] + "/../notify")
