"""The first tables."""

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _create_apps()
    _create_fleet()


def _create_apps() -> None:
    op.create_table(
        "builds",
        sql.Column("app", sql.String(length=32), nullable=False),
        sql.Column("id", sql.String(length=71), nullable=False),
        sql.Column("manifest", sql.String(length=71), nullable=False),
        sql.Column("version", sql.Text(), nullable=False),
        sql.Column("commit", sql.Text(), nullable=False),
        sql.Column("committed_at_s", sql.BigInteger(), nullable=False),
        sql.Column("size_bytes", sql.BigInteger(), nullable=False),
        sql.Column("secrets", sql.Text(), nullable=False),
        sql.Column("created_ms", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("app", "id"),
    )
    op.create_table(
        "configs",
        sql.Column("app", sql.String(length=32), nullable=False),
        sql.Column("environment", sql.String(length=32), nullable=False),
        sql.Column("version", sql.Integer(), nullable=False),
        sql.Column("values", sql.Text(), nullable=False),
        sql.Column("secrets", sql.Text(), nullable=False),
        sql.Column("created_ms", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("app", "environment", "version"),
    )
    op.create_table(
        "environments",
        sql.Column("app", sql.String(length=32), nullable=False),
        sql.Column("environment", sql.String(length=32), nullable=False),
        sql.Column("file", sql.Text(), nullable=False),
        sql.Column("recipient", sql.Text(), nullable=False),
        sql.Column("identity", sql.LargeBinary(), nullable=False),
        sql.Column("runs", sql.Text(), nullable=False),
        sql.Column("stable", sql.Text(), nullable=False),
        sql.Column("sequence", sql.BigInteger(), nullable=False),
        sql.Column("order", sql.Text(), nullable=False),
        sql.PrimaryKeyConstraint("app", "environment"),
    )
    op.create_table(
        "releases",
        sql.Column("app", sql.String(length=32), nullable=False),
        sql.Column("environment", sql.String(length=32), nullable=False),
        sql.Column("name", sql.String(length=64), nullable=False),
        sql.Column("digest", sql.String(length=71), nullable=False),
        sql.Column("build", sql.String(length=71), nullable=False),
        sql.Column("version", sql.Text(), nullable=False),
        sql.Column("commit", sql.Text(), nullable=False),
        sql.Column("created_at_s", sql.BigInteger(), nullable=False),
        sql.Column("created_ms", sql.BigInteger(), nullable=False),
        sql.Column("healthy", sql.Integer(), nullable=False),
        sql.PrimaryKeyConstraint("app", "environment", "name"),
    )


def _create_fleet() -> None:
    op.create_table(
        "assignments",
        sql.Column("host", sql.String(length=63), nullable=False),
        sql.Column("app", sql.String(length=32), nullable=False),
        sql.Column("environment", sql.String(length=32), nullable=False),
        sql.Column("generation", sql.BigInteger(), nullable=False),
        sql.Column("json", sql.Text(), nullable=False),
        sql.PrimaryKeyConstraint("host", "app", "environment"),
    )
    op.create_table(
        "hosts",
        sql.Column("name", sql.String(length=63), nullable=False),
        sql.Column("hello", sql.Text(), nullable=False),
        sql.Column("last_seen_ms", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "meta",
        sql.Column("key", sql.String(length=32), nullable=False),
        sql.Column("value", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "rollouts",
        sql.Column("id", sql.String(length=32), nullable=False),
        sql.Column("app", sql.String(length=32), nullable=False),
        sql.Column("environment", sql.String(length=32), nullable=False),
        sql.Column("state", sql.String(length=16), nullable=False),
        sql.Column("terminal", sql.Integer(), nullable=False),
        sql.Column("created_ms", sql.BigInteger(), nullable=False),
        sql.Column("json", sql.Text(), nullable=False),
        sql.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "one_live_rollout",
        "rollouts",
        ["app", "environment"],
        unique=True,
        sqlite_where=sql.text("terminal = 0"),
        postgresql_where=sql.text("terminal = 0"),
    )
    op.create_index("rollouts_by_environment", "rollouts", ["app", "environment", "created_ms"], unique=False)
    op.create_table(
        "tokens",
        sql.Column("hash", sql.String(length=64), nullable=False),
        sql.Column("name", sql.String(length=64), nullable=False),
        sql.Column("role", sql.String(length=16), nullable=False),
        sql.Column("created_ms", sql.BigInteger(), nullable=False),
        sql.PrimaryKeyConstraint("hash"),
    )
