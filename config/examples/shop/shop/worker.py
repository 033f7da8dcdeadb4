"""Takes open orders one by one and marks them done; at SIGTERM it finishes the one in hand and ends."""

import sqlite3

from shop import RELEASE, VERSION, database, log
from shop.signals import stop_event

IDLE_SECONDS = 0.2


def main() -> None:
    stop = stop_event()
    connection = database.connect()
    log.write(message="worker started", version=VERSION)
    done = 0
    while not stop.is_set():
        try:
            is_done = fulfil_one(connection)
        except sqlite3.OperationalError as error:
            log.write(level="error", message=f"cannot reach the orders: {error}")
            is_done = False
        done += is_done
        if not is_done:
            stop.wait(IDLE_SECONDS)
    connection.close()
    log.write(message="worker drained", version=VERSION, done=done)


def fulfil_one(connection: sqlite3.Connection) -> bool:
    """Whether there was an order; taken and done in one transaction, so that no two workers do the same one."""
    changed = connection.execute(
        "UPDATE orders SET state = 'done', done_by = ? WHERE id = (SELECT id FROM orders WHERE state = 'open' LIMIT 1)",
        (RELEASE,),
    )
    return changed.rowcount == 1
