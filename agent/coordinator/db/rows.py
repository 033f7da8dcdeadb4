"""Writing a row by its key, in SQL that every database knows."""

from sqlalchemy import Connection, Table, and_, insert, update


def put(connection: Connection, table: Table, key: dict[str, object], values: dict[str, object]) -> None:
    """Make the row with `key` hold `values`, whether it is there or not. Within one transaction of the one writer."""
    where = and_(*(table.c[name] == value for name, value in key.items()))
    if connection.execute(update(table).where(where).values(values)).rowcount == 0:
        connection.execute(insert(table).values({**key, **values}))
