"""The database: transactions that lose nothing, a schema that its migrations make, a disk that is full."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select, text, update
from sqlalchemy.exc import IntegrityError

from agent.coordinator.db import fleet, rollouts
from agent.coordinator.db.engine import Database
from agent.coordinator.db.schema import meta, metadata
from agent.errors import FailedError
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName, RolloutId
from agent.model.rollout import Pace, Rollout

pytestmark = pytest.mark.anyio

PACE = Pace(batch=1, max_unavailable=1, min_ready_ms=0, deadline_ms=1, progress_deadline_ms=1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/coordinator.db"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    yield opened
    opened.close()


def rollout(name: str) -> Rollout:
    return Rollout(
        id=RolloutId(name),
        app=AppName("shop"),
        environment=EnvironmentName("local"),
        kind="swap",
        release=ReleaseRef(name=ReleaseName("v1"), digest=Digest("sha256:v1")),
        previous=None,
        order="",
        strategy="rolling",
        pace=PACE,
        back_pace=PACE,
        on_failure="rollback",
        needs_migration=False,
    )


def add_one(connection: Connection) -> None:
    value = connection.execute(select(meta.c.value).where(meta.c.key == "epoch")).scalar_one()
    connection.execute(update(meta).where(meta.c.key == "epoch").values(value=value + 1))


async def test_no_update_is_lost(database: Database) -> None:
    """Eight tasks that read, then write what they read plus one, count every one of their steps."""
    await database.run(fleet.next_epoch)

    async def count() -> None:
        for _ in range(25):
            await database.run(add_one)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(count)
    assert await database.run(fleet.next_epoch) == 202


async def test_no_update_is_lost_beside_another_process(database: Database, url: str) -> None:
    """A transaction takes the write lock before it reads, so that a writer elsewhere cannot come between."""
    await database.run(fleet.next_epoch)
    stranger = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)

    def count() -> None:
        for _ in range(25):
            stranger.execute("BEGIN IMMEDIATE")
            stranger.execute("UPDATE meta SET value = value + 1")
            stranger.execute("COMMIT")

    writer = threading.Thread(target=count)
    writer.start()
    for _ in range(25):
        await database.run(add_one)
    await anyio.to_thread.run_sync(writer.join)
    stranger.close()
    assert await database.run(fleet.next_epoch) == 52


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    """What a transaction wrote before it failed is not there afterwards."""

    def fail(connection: Connection) -> None:
        rollouts.store(connection, rollout("r1"))
        raise FailedError("on purpose")

    with pytest.raises(FailedError, match="on purpose"):
        await database.run(fail)
    assert await database.run(rollouts.live) == []


async def test_the_database_itself_allows_one_live_rollout(database: Database) -> None:
    """Even a program that forgot to look cannot store a second rollout that is under way."""
    await database.run(lambda connection: rollouts.store(connection, rollout("r1")))
    with pytest.raises(IntegrityError):
        await database.run(lambda connection: rollouts.store(connection, rollout("r2")))
    assert [live.id for live in await database.run(rollouts.live)] == ["r1"]


async def test_migrations_make_the_schema(database: Database) -> None:
    """A database made by the migrations has exactly the tables that the code expects."""

    def compare(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert await database.run(compare) == []


async def test_a_commit_is_on_the_disk(database: Database) -> None:
    """Nothing that was answered is lost with the power: every commit is synced."""

    def read(connection: Connection) -> tuple[str, int]:
        journal = connection.execute(text("PRAGMA journal_mode")).scalar_one()
        return str(journal), int(connection.execute(text("PRAGMA synchronous")).scalar_one())

    assert await database.run(read) == ("wal", 2)


async def test_a_full_disk_is_said_and_survived(database: Database) -> None:
    """When the disk is full the answer says so, nothing of the transaction is kept, and the next one works."""

    def shrink(connection: Connection, pages: int) -> None:
        connection.execute(text(f"PRAGMA max_page_count = {pages}"))

    def fill(connection: Connection) -> None:
        for number in range(2_000):
            fleet.store_token(connection, fleet.TokenRow(hash=f"{number:064}", name="x" * 64, role="viewer"), 0)

    await database.run(lambda connection: shrink(connection, 1))
    with pytest.raises(FailedError, match="full") as raised:
        await database.run(fill)
    assert "Free space" in raised.value.what_to_do
    await database.run(lambda connection: shrink(connection, 1 << 20))
    assert await database.run(fleet.list_tokens) == []
    assert await database.run(fleet.next_epoch) == 1


async def test_what_was_stored_is_there_after_a_restart(url: str) -> None:
    """A coordinator that starts again finds its rollouts, in a new epoch."""
    first = Database(url)
    assert await first.run(fleet.next_epoch) == 1
    await first.run(lambda connection: rollouts.store(connection, rollout("r1")))
    first.close()
    second = Database(url)
    assert await second.run(fleet.next_epoch) == 2
    assert await second.run(rollouts.live) == [rollout("r1")]
    second.close()
