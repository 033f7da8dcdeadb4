"""A small HTTP server on an inherited socket, whose file `behaviour` says how it misbehaves. Standard library only."""

import http.server
import os
import pathlib
import signal
import socket
import sys
import threading
import time

BEHAVIOUR = pathlib.Path("behaviour").read_text().strip()
VERSION = pathlib.Path("VERSION").read_text().strip()
DRAIN = pathlib.Path(os.environ["ROLLWAY_DRAIN_FILE"])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        broken = BEHAVIOUR == "never-ready" and self.path == "/ready"
        body = f'{{"version": "{VERSION}", "pid": {os.getpid()}}}'.encode()
        self.send_response(500 if broken else 200)
        self.send_header("Content-Length", str(len(body)))
        if DRAIN.exists():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        print(format % args, flush=True)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.socket = socket.socket(fileno=3)


def main() -> None:
    if BEHAVIOUR == "exits":
        sys.exit("nothing to do here")
    if BEHAVIOUR == "double-forks" and os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)
        os._exit(0)
    server = Server()
    if BEHAVIOUR == "ignores-sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
