"""A web server of nothing but the standard library: says its version and pid, heeds the drain notice, logs numbers."""

import http.server
import itertools
import json
import os
import pathlib
import signal
import socket
import threading
import time

VERSION = pathlib.Path("VERSION").read_text().strip()
NOTICE = pathlib.Path(os.environ["ROLLWAY_DRAIN_FILE"])
IN_HAND = pathlib.Path(os.environ["TMPDIR"], "in-hand")
NUMBERS = itertools.count()


class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/slow":
            IN_HAND.touch()
            time.sleep(2)
            IN_HAND.unlink()
        body = json.dumps({"version": VERSION, "pid": os.getpid()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if NOTICE.exists():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        print("request", next(NUMBERS), flush=True)

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = False


server = Server(("", 0), Hello, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
