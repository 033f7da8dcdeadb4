"""The app that the tests run: an HTTP server on the socket it inherits, which says who it is and drains when told."""

import http.server
import json
import os
import signal
import socket
import sys
import threading
import types
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(
            {
                "release": os.environ["ROLLWAY_RELEASE"],
                "instance": os.environ["ROLLWAY_INSTANCE"],
                "pid": os.getpid(),
                "greeting": os.environ.get("GREETING"),
                "port": os.environ.get("PORT"),
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if Path(os.environ["ROLLWAY_DRAIN_FILE"]).exists():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, _format: str, *args: object) -> None:
        """Requests are not logged."""


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Who has gone before it was answered, as a probe that is late, is nothing to tell of."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # its own words


def main() -> None:
    server = Server(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    if "LISTEN_FDS" in os.environ:
        server.socket = socket.socket(fileno=3)
    else:
        server.socket = socket.create_server((sys.argv[1], int(os.environ["PORT"])))

    def end(_number: int, _frame: types.FrameType | None) -> None:
        rude_s = os.environ.get("RUDE")
        if rude_s is not None:
            server.socket.shutdown(socket.SHUT_RDWR)
        threading.Timer(float(rude_s or 0), server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    server.serve_forever(poll_interval=0.05)


main()
