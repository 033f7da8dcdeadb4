"""A small HTTP server on fd 3. Words: `--accept-after FILE` serves only once FILE is there, `--elsewhere` never does.

/live and /ready answer 200 unless a file `sick` or `busy` lies in the working directory; /slow takes a while; /away
leads to another host.
"""

import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STATUS = {"/live": "sick", "/ready": "busy"}


class Handler(BaseHTTPRequestHandler):
    """Answers, and says so on stdout."""

    def do_GET(self) -> None:
        if self.path == "/slow":
            print("in hand", flush=True)
            time.sleep(1.5)
            print("answered", flush=True)
        status = 503 if os.path.exists(STATUS.get(self.path, "nothing")) else 200
        self.send_response(302 if self.path == "/away" else status)
        self.send_header("Location", "http://127.0.0.9/")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *words: object) -> None:
        """Say nothing of each request."""


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.01)


def tell_notice() -> None:
    wait_for(os.environ["ROLLWAY_DRAIN_FILE"])
    print("notice seen", flush=True)


if "--elsewhere" in sys.argv:
    other = socket.create_server(("127.0.0.1", 0))
    print("listening on", other.getsockname()[1], flush=True)
    signal.pause()
if "--accept-after" in sys.argv:
    wait_for(sys.argv[sys.argv.index("--accept-after") + 1])


def end(*_: object) -> None:
    print("told to end", flush=True)
    threading.Thread(target=server.shutdown).start()


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.daemon_threads = False
threading.Thread(target=tell_notice, daemon=True).start()
signal.signal(signal.SIGTERM, end)
server.serve_forever(poll_interval=0.05)
server.server_close()
print("bye", flush=True)
