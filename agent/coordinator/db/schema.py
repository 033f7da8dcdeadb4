"""The tables. One schema for SQLite and PostgreSQL; changed by migrations only, which a test compares with this.

Structs are kept as their JSON beside the columns that are searched. Times are milliseconds since 1970.
"""

from typing import Final

import sqlalchemy as sql
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, Text, text

metadata: Final = MetaData()

meta: Final = Table(
    "meta",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""`epoch`: one more at each start."""

tokens: Final = Table(
    "tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
"""SHA-256 of each token in hexadecimal; the token itself is known to its holder alone."""

builds: Final = Table(
    "builds",
    metadata,
    Column("app", String(32), primary_key=True),
    Column("id", String(71), primary_key=True),
    Column("manifest", String(71), nullable=False),
    Column("version", Text, nullable=False),
    Column("commit", Text, nullable=False),
    Column("committed_at_s", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("secrets", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
"""What is searched of the manifests in the store; `secrets`: JSON list of the config keys it declares secret."""

environments: Final = Table(
    "environments",
    metadata,
    Column("app", String(32), primary_key=True),
    Column("environment", String(32), primary_key=True),
    Column("file", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("identity", LargeBinary, nullable=False),
    Column("runs", Text, nullable=False),
    Column("stable", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("order", Text, nullable=False),
)
"""`identity`: the age identity, encrypted to the coordinator's own. `order`: the envelope of the last order begun."""

configs: Final = Table(
    "configs",
    metadata,
    Column("app", String(32), primary_key=True),
    Column("environment", String(32), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("values", Text, nullable=False),
    Column("secrets", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
"""Every version, whole. `secrets`: JSON list of the keys that were ever secret."""

releases: Final = Table(
    "releases",
    metadata,
    Column("app", String(32), primary_key=True),
    Column("environment", String(32), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("digest", String(71), nullable=False),
    Column("build", String(71), nullable=False),
    Column("version", Text, nullable=False),
    Column("commit", Text, nullable=False),
    Column("created_at_s", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("healthy", Integer, nullable=False),
)
"""What is searched of the envelopes in the store; `healthy`: it was, to the end of a rollout."""

rollouts: Final = Table(
    "rollouts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("app", String(32), nullable=False),
    Column("environment", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("terminal", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("json", Text, nullable=False),
    sql.Index("rollouts_by_environment", "app", "environment", "created_ms"),
    sql.Index(
        "one_live_rollout",
        "app",
        "environment",
        unique=True,
        sqlite_where=text("terminal = 0"),
        postgresql_where=text("terminal = 0"),
    ),
)

assignments: Final = Table(
    "assignments",
    metadata,
    Column("host", String(63), primary_key=True),
    Column("app", String(32), primary_key=True),
    Column("environment", String(32), primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("json", Text, nullable=False),
)
"""Without what is added when it is sent: the epoch and the environment's key."""

hosts: Final = Table(
    "hosts",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("hello", Text, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False),
)

members: Final = Table(
    "members",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("public_key", String(64), nullable=False),
    Column("environments", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("joined_ms", BigInteger, nullable=False),
    Column("removed_ms", BigInteger, nullable=False),
)
"""What operators decided about a host, over what it says of itself. `public_key`: SHA-256 of the only key that may be
this host; empty: any that the authority certified. `removed_ms`: not 0 when the name may not connect any more."""

host_tokens: Final = Table(
    "host_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("environments", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("made_by", String(64), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("used_by", String(64), nullable=False),
    Column("host", String(63), nullable=False),
)
"""`hash`: SHA-256 of the secret. `used_by`, `host`: the key and the name that it brought in; empty until then."""

leases: Final = Table(
    "leases",
    metadata,
    Column("app", String(32), primary_key=True),
    Column("environment", String(32), primary_key=True),
    Column("process", String(32), primary_key=True),
    Column("host", String(63), nullable=False),
    Column("hold_ms", BigInteger, nullable=False),
)
"""Which host has the lease of a singleton, and for how long it is answered each time; -1: without an end. It is stored
with no moment: nobody knows from this when it was answered last."""

shares: Final = Table(
    "shares",
    metadata,
    Column("app", String(32), primary_key=True),
    Column("environment", String(32), primary_key=True),
    Column("process", String(32), primary_key=True),
    Column("host", String(63), primary_key=True),
    Column("share", Integer, nullable=False),
)
"""How many each host runs of a type with a total; never 0."""
