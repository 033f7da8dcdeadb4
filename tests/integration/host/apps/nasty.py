"""An app that behaves until the file named by its last word is there: then it is as bad as its first word says.

flood, endless: writes lines, or one line, as fast as it can. mute, headers, body, drip: a server on fd 3 that answers
its probes by silence, by headers or a body without end, or by a byte now and then. busy: answers 503.
"""

import contextlib
import itertools
import os
import select
import socket
import sys
import threading
import time

KIND, SWITCH = sys.argv[1], sys.argv[-1]
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
BUSY = GOOD.replace(b"200 OK", b"503 Busy")
HEAD = b"HTTP/1.1 200 OK\r\n"


def write() -> None:
    while not os.path.exists(SWITCH):
        time.sleep(0.05)
    ends = b"\n" if KIND == "flood" else b""
    while True:
        os.write(1, (b"%s says something. " % KIND.encode() * 4 + ends) * 64)


def parts() -> "itertools.chain[bytes]":
    if KIND == "headers":
        return itertools.chain([HEAD], itertools.repeat(b"X-More: of the same\r\n" * 100))
    if KIND == "body":
        return itertools.chain([HEAD + b"\r\n"], itertools.repeat(b"x" * 65_536))
    return itertools.chain([HEAD], itertools.repeat(b"X"))


def answer(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        connection.recv(65_536)
        if not os.path.exists(SWITCH):
            connection.sendall(GOOD)
        elif KIND == "busy":
            connection.sendall(BUSY)
        elif KIND == "mute":
            connection.recv(1)  # until who asks goes away
        else:
            for part in parts():
                connection.sendall(part)
                if KIND == "drip" and select.select([connection], [], [], 0.05)[0]:
                    return


def serve() -> None:
    listening = socket.socket(fileno=3)
    while True:
        threading.Thread(target=answer, args=listening.accept()[:1], daemon=True).start()


write() if KIND in ("flood", "endless") else serve()
