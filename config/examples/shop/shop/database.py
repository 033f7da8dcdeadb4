"""The backing service that DATABASE_URL names: SQLite, shared by several processes and by two releases during a swap."""

import os
import sqlite3
from urllib.parse import unquote, urlsplit

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY,
    item TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done')),
    taken_by TEXT NOT NULL,
    done_by TEXT
);
CREATE INDEX IF NOT EXISTS open_orders ON orders (id) WHERE state = 'open';
CREATE TABLE IF NOT EXISTS heartbeats (tick INTEGER PRIMARY KEY, release TEXT NOT NULL);
"""


def path() -> str:
    """The file in DATABASE_URL, as in sqlite:////var/lib/shop/shop.db (or sqlite:///relative.db)."""
    url = urlsplit(os.environ["DATABASE_URL"])
    if url.scheme != "sqlite" or url.netloc or len(url.path) < 2:
        raise SystemExit("DATABASE_URL: expected sqlite:///PATH")
    return unquote(url.path[1:])


def connect() -> sqlite3.Connection:
    """A connection whose every statement is durable when it returns, and which waits for the others."""
    connection = sqlite3.connect(path(), timeout=10, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection
