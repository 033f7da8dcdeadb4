"""Which host has the lease of a singleton, and how many of a total."""

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
    op.create_table(
        "shares",
        sql.Column("app", sql.String(length=32), nullable=False),
        sql.Column("environment", sql.String(length=32), nullable=False),
        sql.Column("process", sql.String(length=32), nullable=False),
        sql.Column("host", sql.String(length=63), nullable=False),
        sql.Column("share", sql.Integer(), nullable=False),
        sql.PrimaryKeyConstraint("app", "environment", "process", "host"),
    )
