"""A WSGI app of a few lines as its author would wrap it; NOTICE=off leaves the middleware away."""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import rollway_drain

BODY = json.dumps({"release": os.environ["ROLLWAY_RELEASE"]}).encode()
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def plain(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", HEADERS)
    return [BODY]


app = plain if os.environ.get("NOTICE") == "off" else rollway_drain.WSGI(plain)
