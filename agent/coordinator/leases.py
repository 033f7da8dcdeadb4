"""The shell of `decisions.lease`: hosts ask, what changes is committed, then they are answered.

Rules: one question at a time; the clock is read after the question came and before it is answered. A question that
cannot be decided because the database takes nothing is not answered: it comes again.
"""

from collections.abc import Mapping
from typing import Final, Self

import anyio
import structlog
from msgspec import Struct

from agent.coordinator.db import leases as rows
from agent.coordinator.db.engine import Database
from agent.decisions import lease, shares
from agent.decisions.lease import Holder, Told
from agent.decisions.shares import Place, Shares
from agent.errors import FailedError, NotFoundError, RefusedError, VerificationError
from agent.linux import clock
from agent.model.ids import HostName, is_name
from agent.model.lease import WITHOUT_END, LeaseAnswer, LeaseAsk, LeaseName
from agent.model.units import Milliseconds

ASKS_MAX: Final = 1_000
TOTAL_MAX: Final = 1_000_000

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Shown(Struct, frozen=True, kw_only=True):
    """A lease for people."""

    name: LeaseName
    host: HostName
    left_ms: Milliseconds | None
    """How long before another host may have it, should its own say nothing more; None: it has no end."""


class Leases:
    def __init__(
        self, database: Database, stored: Mapping[LeaseName, Holder], placed: Mapping[LeaseName, Shares]
    ) -> None:
        self._database, self._book = database, lease.opened(stored, _now_ms())
        self._table = shares.opened(placed, _now_ms())
        self._in_turn = anyio.Lock()
        self._unsure: set[LeaseName] = set()
        """Of which nobody knows what is stored, because it failed."""

    @classmethod
    async def load(cls, database: Database) -> Self:
        return cls(database, await database.run(rows.every), await database.run(rows.every_share))

    def shown(self) -> tuple[Shown, ...]:
        now_ms = _now_ms()
        return tuple(
            Shown(
                name=name,
                host=held.holder.host,
                left_ms=None if held.holder.hold_ms == WITHOUT_END else max(0, held.until_ms - now_ms),
            )
            for name, held in sorted(self._book.holdings.items())
        )

    async def ask(
        self, host: HostName, asks: tuple[LeaseAsk, ...], places: Mapping[Place, tuple[HostName, ...]]
    ) -> tuple[LeaseAnswer, ...] | None:
        """Answer a host; None where that cannot be stored. Raises VerificationError for what no agent says.

        `places` are the environments to which it belongs, each with the hosts that are about to move there.
        """
        if len(asks) > ASKS_MAX or not all(map(_is_sound, asks)):
            raise VerificationError(f"{host} asks for leases that there are not")
        singles, parts = [ask for ask in asks if not ask.total], [ask for ask in asks if ask.total]
        allowed = {ask.name for ask in singles if ask.name[:2] in places}
        async with self._in_turn:
            try:
                told = await self._kept(lease.asked(self._book, host, singles, allowed, _now_ms()))
                placed = await self._placed(shares.asked(self._table, host, parts, places, _now_ms()))
            except FailedError as error:
                log.error("a lease cannot be stored", host=host, reason=error.error)  # noqa: TRY400 - the disk's fault
                return None
        return (*told.answers, *placed.answers)

    async def give_up(self, name: LeaseName, host: HostName) -> None:
        """A person answers for it that `host` runs it no more. Raises NotFoundError, RefusedError, FailedError."""
        async with self._in_turn:
            if (held := self._book.holdings.get(name)) is None:
                raise NotFoundError(
                    f"no host has the lease of {name.process} of {name.app} in {name.environment}",
                    "See `rollway lease list`.",
                )
            if held.holder.host != host:
                raise RefusedError(f"{held.holder.host} has that lease, not {host}", "See `rollway lease list`.")
            await self._kept(lease.given_up(self._book, name))

    def left(self, host: HostName) -> None:
        """It has no link any more."""
        self._book = lease.left(self._book, host)

    async def _kept(self, told: Told) -> Told:
        """Store what has changed, and what an earlier failure to store may have left otherwise; then it is so."""
        held = {name: told.book.holdings.get(name) for name in self._unsure}
        changes = {**{name: one.holder if one is not None else None for name, one in held.items()}, **told.changes}
        with anyio.CancelScope(shield=True):  # once begun it is stored, whoever asked may be gone
            if changes:
                self._unsure.update(changes)
                await self._database.run(lambda connection: rows.change(connection, changes))
                self._unsure.clear()
            for name, holder in told.changes.items():
                log.info("lease", lease=str(name), host=holder.host if holder is not None else "")
            self._book = told.book
        return told

    async def _placed(self, placed: shares.Told) -> shares.Told:
        with anyio.CancelScope(shield=True):
            if placed.changes:
                await self._database.run(lambda connection: rows.change_shares(connection, placed.changes))
            for name, hosts in placed.changes.items():
                log.info("shares", of=str(name), hosts=dict(hosts))
            self._table = placed.table
        return placed


def _is_sound(ask: LeaseAsk) -> bool:
    return all(map(is_name, ask.name)) and min(ask.hold_ms, ask.bound_ms) >= WITHOUT_END and 0 <= ask.total <= TOTAL_MAX


def _now_ms() -> Milliseconds:
    return clock.now().boottime_ms
