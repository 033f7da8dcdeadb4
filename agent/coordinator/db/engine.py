"""Transactions: each is a plain function of a connection, run whole and in turn on the one thread that has one.

Rules: reading and writing share the thread, so no transaction sees another half done, none waits for a lock, and
nobody else writes or checkpoints the file. Every transaction takes the write lock at its beginning (the driver's own
habit of taking it at the first write loses updates) and is on the disk when it returns. Who stops waiting for one
changes nothing about it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from sqlite3 import Connection as SqliteConnection
from typing import Final, TypeVar

import sqlalchemy as sql
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event
from sqlalchemy.exc import DatabaseError, IntegrityError

from agent.errors import FailedError

Answer = TypeVar("Answer")
Transaction = Callable[[Connection], Answer]

_MIGRATIONS: Final = "agent.coordinator.db:migrations"


class Database:
    """An open database, migrated to this version's tables. Constructing it blocks: do it before the loop runs."""

    def __init__(self, url: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        self._engine = sql.create_engine(url, pool_size=1, max_overflow=0)
        event.listen(self._engine, "connect", _set_up)
        event.listen(self._engine, "begin", _begin)
        try:
            self._thread.submit(self._migrate).result()
        except DatabaseError as error:
            self.close()
            raise self._explained(error) from error

    async def run(self, transaction: Transaction[Answer]) -> Answer:
        """What `transaction` gives, once it is committed. Raises FailedError when the database cannot."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, transaction)

    def close(self) -> None:
        self._thread.submit(self._engine.dispose).result()
        self._thread.shutdown()

    def _run(self, transaction: Transaction[Answer]) -> Answer:
        try:
            with self._engine.begin() as connection:
                return transaction(connection)
        except IntegrityError:
            raise  # what the program should have looked for first
        except DatabaseError as error:
            raise self._explained(error) from error

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", _MIGRATIONS)
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _explained(self, error: DatabaseError) -> FailedError:
        """SQLite says of a full disk what it happened to be doing there, and never where."""
        return FailedError(
            f"cannot store in {self._engine.url.database}: the database says: {error.orig}",
            "Nothing of it was kept. Free space on the coordinator's machine (`df -h`, `df -i`), then try again.",
        )


def _set_up(connection: SqliteConnection, _record: object) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 5000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
