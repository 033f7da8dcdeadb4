"""Rows of leases: which host has which."""

from collections.abc import Mapping

from sqlalchemy import Connection, delete, select

from agent.coordinator.db.rows import put
from agent.coordinator.db.schema import leases as table
from agent.decisions.lease import Holder
from agent.model.lease import LeaseName


def every(connection: Connection) -> dict[LeaseName, Holder]:
    return {
        LeaseName(row.app, row.environment, row.process): Holder(host=row.host, hold_ms=row.hold_ms)
        for row in connection.execute(select(table))
    }


def change(connection: Connection, changes: Mapping[LeaseName, Holder | None]) -> None:
    """Store who has them now; None: nobody."""
    for name, holder in changes.items():
        where = name._asdict()
        if holder is not None:
            put(connection, table, where, {"host": holder.host, "hold_ms": holder.hold_ms})
        else:
            connection.execute(delete(table).filter_by(**where))
