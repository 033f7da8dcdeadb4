"""A WSGI app as gunicorn's own tutorial has it, plus the drain notice in three lines."""

import os
import pathlib
from collections.abc import Callable, Iterable

VERSION = pathlib.Path("VERSION").read_text().strip()


def app(environ: dict[str, object], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    body = f'{{"version": "{VERSION}"}}'.encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    if os.path.exists(os.environ["ROLLWAY_DRAIN_FILE"]):
        headers.append(("Connection", "close"))
    start_response("200 OK", headers)
    return [body]
