"""The last that a failed release said, shown where its rollout ends: the reason for a failure stands there mostly.

Rules: what instances wrote, without access logs, stderr before stdout; when it cannot be had soon, the command that
would show it. Never an error of its own.
"""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio

from agent.cli.records import Record, in_words, read_record
from agent.client.answers import RolloutShown
from agent.errors import RollwayError

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator

SHOWN: Final = 5
_LOOKED_AT: Final = 500
_PATIENCE_S: Final = 5
_ACCESS: Final = re.compile(r'"?(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) \S+ HTTP/\d')


async def last_words(coordinator: "Coordinator", rollout: RolloutShown) -> Sequence[str]:
    """Lines for a person; none where the release did not fail, or its release command has been shown already."""
    migration_failed = rollout.migration is not None and rollout.migration.state == "failed"
    if rollout.state not in {"failed", "rolled_back"} or migration_failed:
        return ()
    records: list[Record] = []
    with suppress(RollwayError), anyio.move_on_after(_PATIENCE_S):
        lines = coordinator.logs(rollout.app, rollout.environment, None, None, lines=_LOOKED_AT, follow=False)
        records = [record async for record in _read(lines)]
    hosts = failed_hosts(rollout)
    said = choose(records, rollout.release, hosts)
    where = "".join(f" --host {host}" for host in hosts[:1])
    command = f"rollway logs {rollout.app} {rollout.environment} --release {rollout.release}{where}"
    if not said:
        return (f"what {rollout.release} said: {command}",)
    return (f"the last that {rollout.release} said (more: {command}):", *(f"  {in_words(record)}" for record in said))


def failed_hosts(rollout: RolloutShown) -> tuple[str, ...]:
    """The hosts that the reason blames; after the way back their state no longer tells."""
    named = re.findall(r"[\w.-]+", rollout.reason)
    return tuple(host.host for host in rollout.hosts if host.host in named)


def choose(records: Sequence[Record], release: str, hosts: Sequence[str]) -> Sequence[Record]:
    """The newest that matter, in the order in which they were written."""
    mine = [
        record
        for record in records
        if record.text("release") == release
        and (not hosts or record.text("host") in hosts)
        and not _ACCESS.search(record.text("message"))
    ]
    complaints = [record for record in mine if record.text("stream") == "stderr"]
    return (complaints or mine)[-SHOWN:]


async def _read(lines: AsyncIterator[bytes]) -> AsyncIterator[Record]:
    async for line in lines:
        if (record := read_record(line)) is not None:
            yield record
