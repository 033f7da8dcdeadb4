"""The web front, as WSGI: /, /orders (GET, POST), and what the probes ask: /startup, /ready, /live.

An order that was answered with 201 is on disk. A version that ends in "-broken" never becomes ready.
"""

import json
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable

from shop import RELEASE, VERSION, database, log

BODY_MAX = 64 * 1024
ORDERS_SHOWN = 100

Answer = tuple[str, dict[str, object]]
_mine = threading.local()
_REQUEST_ID = re.compile(r"[\w.-]{1,64}")


def app(environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    began = time.monotonic()
    request_id = request_id_of(environ)
    status, answer = route(environ)
    body = json.dumps({"version": VERSION, "release": RELEASE, **answer}).encode() + b"\n"
    start_response(
        status,
        [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("X-Request-Id", request_id)],
    )
    log.write(
        method=environ["REQUEST_METHOD"],
        path=environ.get("PATH_INFO", ""),
        status=int(status[:3]),
        duration_ms=round((time.monotonic() - began) * 1000, 3),
        request_id=request_id,
    )
    return [body]


def route(environ: dict[str, object]) -> Answer:
    routes: dict[tuple[object, object], Callable[[dict[str, object]], Answer]] = {
        ("GET", "/"): lambda _: ("200 OK", {"message": "welcome to the shop"}),
        ("GET", "/live"): lambda _: ("200 OK", {"live": True}),
        ("GET", "/startup"): lambda _: ("200 OK", {"started": True}),
        ("GET", "/ready"): ready,
        ("GET", "/orders"): list_orders,
        ("POST", "/orders"): take_order,
    }
    method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/")
    handler = routes.get(("GET" if method == "HEAD" else method, path))
    if handler is None:
        return "404 Not Found", {"error": "there is nothing here"}
    try:
        return handler(environ)
    except sqlite3.Error as error:
        return "503 Service Unavailable", {"error": f"the database does not answer: {error}"}


def ready(_environ: dict[str, object]) -> Answer:
    if VERSION.endswith("-broken"):
        return "500 Internal Server Error", {"ready": False, "error": "this version never becomes ready"}
    connection().execute("SELECT 1 FROM orders LIMIT 1")
    return "200 OK", {"ready": True}


def list_orders(_environ: dict[str, object]) -> Answer:
    counted = dict(connection().execute("SELECT state, count(*) FROM orders GROUP BY state"))
    rows = connection().execute("SELECT id, item, state FROM orders ORDER BY rowid DESC LIMIT ?", (ORDERS_SHOWN,))
    orders = [{"id": id_, "item": item, "state": state} for id_, item, state in rows]
    return "200 OK", {"open": counted.get("open", 0), "done": counted.get("done", 0), "newest": orders}


def take_order(environ: dict[str, object]) -> Answer:
    """`{"item": …, "id": …}`; with an id of its own a client may ask again without ordering twice."""
    length = str(environ.get("CONTENT_LENGTH") or "0")
    if not length.isdecimal() or int(length) > BODY_MAX:
        return "413 Content Too Large", {"error": f"expected at most {BODY_MAX} bytes"}
    try:
        order = json.loads(environ["wsgi.input"].read(int(length)))
        item, order_id = order["item"], order.get("id", uuid.uuid4().hex)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "400 Bad Request", {"error": 'expected {"item": "…"}'}
    if not (isinstance(item, str) and isinstance(order_id, str) and item and order_id):
        return "400 Bad Request", {"error": 'expected {"item": "…"}'}
    connection().execute(
        "INSERT OR IGNORE INTO orders (id, item, taken_by) VALUES (?, ?, ?)", (order_id, item, RELEASE)
    )
    return "201 Created", {"id": order_id}


def request_id_of(environ: dict[str, object]) -> str:
    given = str(environ.get("HTTP_X_REQUEST_ID", ""))
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def connection() -> sqlite3.Connection:
    """This thread's connection, opened when first needed: after gunicorn's fork."""
    if not hasattr(_mine, "connection"):
        _mine.connection = database.connect()
    return _mine.connection
