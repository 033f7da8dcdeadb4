"""A worker that hands over to a child: MAINPID=CHILD. Its words say how.

`at-once FILE`: it ends right after it has said so, with code 7; `until FILE`: when that file is there. `late`: it says
so when FILE.late is there. `session`: the child leaves its session. The child says what it gets: "got SIGTERM"; it ends
with code 9 when FILE.child is there. `bad TEXT`: it only says MAINPID=TEXT; `thread`: the number of one of its threads.
"""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

WORDS = sys.argv[1:]


def say(text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


def child(end: Path) -> None:
    signal.signal(signal.SIGTERM, lambda *_: (print("got SIGTERM", flush=True), os._exit(0)))
    print("child", os.getpid(), flush=True)
    while not end.exists():
        time.sleep(0.01)
    os._exit(9)


if WORDS[0] == "bad":
    say(f"MAINPID={WORDS[1]}\nSTATUS=said")
    signal.pause()
elif WORDS[0] == "thread":
    waits = threading.Thread(target=threading.Event().wait, daemon=True)
    waits.start()
    say(f"MAINPID={waits.native_id}\nSTATUS=said")
    signal.pause()

go = Path(WORDS[1])
pid = os.fork()
if pid == 0:
    if "session" in WORDS:
        os.setsid()
    child(Path(f"{go}.child"))
if "late" in WORDS:
    while not Path(f"{go}.late").exists():
        time.sleep(0.01)
say(f"MAINPID={pid}\nREADY=1")
while WORDS[0] == "until" and not go.exists():
    time.sleep(0.01)
os._exit(7)
