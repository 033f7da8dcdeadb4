"""Hosts that join by a token, and what operators decide about a host."""

import sqlalchemy as sql
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "members",
        sql.Column("name", sql.String(length=63), nullable=False),
        sql.Column("public_key", sql.String(length=64), nullable=False),
        sql.Column("environments", sql.Text(), nullable=False),
        sql.Column("labels", sql.Text(), nullable=False),
        sql.Column("joined_ms", sql.BigInteger(), nullable=False),
        sql.Column("removed_ms", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "host_tokens",
        sql.Column("hash", sql.String(length=64), nullable=False),
        sql.Column("name", sql.String(length=63), nullable=False),
        sql.Column("environments", sql.Text(), nullable=False),
        sql.Column("labels", sql.Text(), nullable=False),
        sql.Column("made_by", sql.String(length=64), nullable=False),
        sql.Column("expires_ms", sql.BigInteger(), nullable=False),
        sql.Column("used_by", sql.String(length=64), nullable=False),
        sql.Column("host", sql.String(length=63), nullable=False),
        sql.PrimaryKeyConstraint("hash"),
    )
