"""A WSGI app as gunicorn's own tutorial has it."""

import pathlib
from collections.abc import Callable, Iterable

VERSION = pathlib.Path("VERSION").read_text().strip()


def app(environ: dict[str, object], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    body = f'{{"version": "{VERSION}"}}'.encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
