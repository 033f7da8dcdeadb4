"""Writes one heartbeat row per tick; several schedulers agree on the tick's number, so one row is all they make."""

import sqlite3
import time

from shop import RELEASE, VERSION, database, log
from shop.signals import stop_event

TICK_SECONDS = 1


def main() -> None:
    stop = stop_event()
    connection = database.connect()
    log.write(message="scheduler started", version=VERSION)
    while not stop.wait(TICK_SECONDS - time.time() % TICK_SECONDS):
        tick = int(time.time() / TICK_SECONDS)
        try:
            written = connection.execute(
                "INSERT OR IGNORE INTO heartbeats (tick, release) VALUES (?, ?)", (tick, RELEASE)
            )
            log.write(message="tick", tick=tick, is_first=written.rowcount == 1)
        except sqlite3.OperationalError as error:
            log.write(level="error", message=f"cannot write the heartbeat: {error}")
    connection.close()
    log.write(message="scheduler drained", version=VERSION)
