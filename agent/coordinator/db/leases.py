"""Rows of leases and of shares: which host has which, and how many."""

from collections.abc import Mapping

from sqlalchemy import Connection, delete, insert, select

from agent.coordinator.db.rows import put
from agent.coordinator.db.schema import leases as table
from agent.coordinator.db.schema import shares
from agent.decisions.lease import Holder
from agent.decisions.shares import Shares
from agent.model.ids import HostName
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


def every_share(connection: Connection) -> dict[LeaseName, dict[HostName, int]]:
    found: dict[LeaseName, dict[HostName, int]] = {}
    for row in connection.execute(select(shares)):
        found.setdefault(LeaseName(row.app, row.environment, row.process), {})[row.host] = row.share
    return found


def change_shares(connection: Connection, changes: Mapping[LeaseName, Shares]) -> None:
    """Store who runs how many now."""
    for name, hosts in changes.items():
        connection.execute(delete(shares).filter_by(**name._asdict()))
        for host, share in hosts.items():
            connection.execute(insert(shares).values(**name._asdict(), host=host, share=share))
