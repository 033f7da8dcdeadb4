"""Takes open orders one by one and marks them done; at SIGTERM it finishes the one in hand and ends."""

import sqlite3

from shop import RELEASE, VERSION, database, log
from shop.signals import stop_event

IDLE_SECONDS = 0.2


def main() -> None:
    stop = stop_event()
    connection = database.connect()
    log.write(message="worker started", version=VERSION)
    while not stop.is_set():
        try:
            order = fulfil_one(connection)
        except sqlite3.OperationalError as error:
            log.write(level="error", message=f"cannot reach the orders: {error}")
            order = None
        if order is None:
            stop.wait(IDLE_SECONDS)
        else:
            log.write(message="order fulfilled", order=order)
    connection.close()
    log.write(message="worker drained", version=VERSION)


def fulfil_one(connection: sqlite3.Connection) -> str | None:
    """The order that was done, if there was one; taken and done in one statement, so that no two workers do it."""
    done = connection.execute(
        "UPDATE orders SET state = 'done', done_by = ?"
        " WHERE id = (SELECT id FROM orders WHERE state = 'open' LIMIT 1) RETURNING id",
        (RELEASE,),
    ).fetchall()
    return done[0][0] if done else None
