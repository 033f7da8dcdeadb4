"""Which host has the lease of a singleton."""

import sqlalchemy as sql
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "leases",
        sql.Column("app", sql.String(length=32), nullable=False),
        sql.Column("environment", sql.String(length=32), nullable=False),
        sql.Column("process", sql.String(length=32), nullable=False),
        sql.Column("host", sql.String(length=63), nullable=False),
        sql.Column("hold_ms", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("app", "environment", "process"),
    )
