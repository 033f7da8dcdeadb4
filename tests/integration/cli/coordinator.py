"""A coordinator of the test's own: answers that the test wrote, on a real socket, and what it was asked."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final

from msgspec import Struct

Answer = tuple[int, object]
TOKEN: Final = "t-0123456789"


class Asked(Struct, frozen=True):
    method: str
    path: str
    body: bytes
    authorization: str


class FakeCoordinator:
    """`answers` by method and path: one that stays, or a list of which each is given once."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answer | list[Answer]] = {}
        self.asked: list[Asked] = []
        self.url = ""

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        found = self.answers.get((asked.method, asked.path.partition("?")[0]))
        if isinstance(found, list):
            return found.pop(0)
        return found or (404, {"error": f"nothing at {asked.path}", "what_to_do": "Ask for something else.", "code": 5})

    def bodies(self, method: str) -> list[dict[str, object]]:
        return [json.loads(asked.body) for asked in self.asked if asked.method == method]


@contextmanager
def serving() -> Iterator[FakeCoordinator]:
    fake = FakeCoordinator()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, body, self.headers.get("Authorization", ""))
            status, value = fake.answer(asked)
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
