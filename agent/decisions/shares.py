"""How many of a type with `total = N` each host runs: N in all, evenly, and where they are as far as that goes.

Rules: a share is not a lease: it has no end, and a host that is cut off runs on with what it has. One that was not
heard for `LOST_MS`, or says that it would have none, has its share given to others; back again, it is told anew. While
shares move there may be some more than N, or fewer, for as long as it takes the hosts to ask. Not handled here: which
host belongs to the environment.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from agent.model.ids import AppName, EnvironmentName, HostName
from agent.model.lease import LeaseAnswer, LeaseAsk, LeaseName
from agent.model.units import Milliseconds

LOST_MS: Final = 60_000

Shares = Mapping[HostName, int]
Place = tuple[AppName, EnvironmentName]


class Table(Struct, frozen=True, kw_only=True):
    """Who has how many of each type, and when each host that takes part in it was heard last."""

    shares: dict[LeaseName, Shares] = {}
    heard: dict[LeaseName, dict[HostName, Milliseconds]] = {}


class Told(Struct, frozen=True, kw_only=True):
    """`changes` are stored first, then `table` is the truth, then it is answered."""

    table: Table
    changes: dict[LeaseName, Shares] = {}
    answers: tuple[LeaseAnswer, ...] = ()


def opened(stored: Mapping[LeaseName, Shares], now_ms: Milliseconds) -> Table:
    """The table of a coordinator that starts: every host has time to come back."""
    return Table(shares=dict(stored), heard={name: dict.fromkeys(hosts, now_ms) for name, hosts in stored.items()})


def asked(
    table: Table,
    host: HostName,
    asks: Iterable[LeaseAsk],
    places: Mapping[Place, Iterable[HostName]],
    now_ms: Milliseconds,
) -> Told:
    """A host has said of what it would have a share: of what it leaves out it has none.

    `places` are those to which it belongs, each with hosts that will ask before long, as in the middle of a rollout:
    theirs is left to them, so that the first host that moves does not have to run all.
    """
    told = Told(table=table)
    totals = {ask.name: ask.total for ask in asks if ask.wants and ask.name[:2] in places}
    for name in [name for name, hosts in table.heard.items() if host in hosts and name not in totals]:
        heard = {one: at for one, at in told.table.heard[name].items() if one != host}
        told = _put(told, name, heard, spread(_placed(told, name), heard, told.table.shares.get(name, {})))
    for name, total in totals.items():
        heard = {**told.table.heard.get(name, {}), host: now_ms}
        heard = {one: at for one, at in heard.items() if now_ms < at + LOST_MS}
        hosts = (*heard, *(one for one in places[name[:2]] if one not in heard))
        told = _put(told, name, heard, spread(total, hosts, told.table.shares.get(name, {})))
    answers = tuple(
        LeaseAnswer(name=ask.name, granted=ask.name in totals, share=told.table.shares.get(ask.name, {}).get(host, 0))
        for ask in asks
    )
    return replace(told, answers=answers)


def spread(total: int, hosts: Iterable[HostName], shares: Shares) -> Shares:
    """`total` over `hosts`, none with two more than another, each with as much of what it has as that allows."""
    by_share = sorted(hosts, key=lambda host: -shares.get(host, 0))
    if not by_share:
        return {}
    least, over = divmod(total, len(by_share))
    allowed = [least + (place < over) for place in range(len(by_share))]
    return {host: most for host, most in zip(by_share, allowed, strict=True) if most}


def _placed(told: Told, name: LeaseName) -> int:
    return sum(told.table.shares.get(name, {}).values())


def _put(told: Told, name: LeaseName, heard: dict[HostName, Milliseconds], shares: Shares) -> Told:
    changes = {**told.changes, name: shares} if shares != told.table.shares.get(name, {}) else told.changes
    table = Table(shares={**told.table.shares, name: shares}, heard={**told.table.heard, name: heard})
    return replace(told, table=table, changes=changes)
