"""Who may run a singleton: at most one host at any moment, none for a while, one in the end.

Rules: a lease is granted to a host that asks, renewed as often as it asks, and given to another only when its holder
has said that nothing lives there any more, or its time and a margin have passed since the last answer that it may have
had. That a host holds it is stored before it is told so; a renewal is not: whoever starts over what is stored takes
each holder for one that was answered in that very moment. `now_ms` is the coordinator's own CLOCK_BOOTTIME: no wall
clock, and nothing that a host's clock shows, is believed. Not handled here: which host belongs to the environment.
"""

from collections.abc import Container, Iterable, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from agent.model.ids import HostName
from agent.model.lease import WITHOUT_END, LeaseAnswer, LeaseAsk, LeaseName
from agent.model.units import Milliseconds

MARGIN_MS: Final = 5_000
"""For what a guard may be late, and for clocks that do not go at one pace."""
HEARD_MS: Final = 30_000
"""So long a host that asked in vain is thought of when others ask."""


class Holder(Struct, frozen=True, kw_only=True):
    """What is stored of a lease that a host has."""

    host: HostName
    hold_ms: Milliseconds


class Holding(Struct, frozen=True, kw_only=True):
    holder: Holder
    until_ms: Milliseconds
    """When it can be given to another, unless it has no end."""


class Book(Struct, frozen=True, kw_only=True):
    """Every lease that a host has, and who would have one."""

    holdings: dict[LeaseName, Holding] = {}
    waiting: dict[LeaseName, dict[HostName, Milliseconds]] = {}
    """When a host last asked in vain."""


class Told(Struct, frozen=True, kw_only=True):
    """`changes` is stored first, None being a lease that nobody has; then `book` is the truth, then it is answered."""

    book: Book
    changes: dict[LeaseName, Holder | None] = {}
    answers: tuple[LeaseAnswer, ...] = ()


def opened(stored: Mapping[LeaseName, Holder], now_ms: Milliseconds) -> Book:
    """The book of a coordinator that starts: nobody knows how short a time ago another one answered."""
    return Book(holdings={name: _held(holder, now_ms) for name, holder in stored.items()})


def asked(
    book: Book, host: HostName, asks: Iterable[LeaseAsk], allowed: Container[LeaseName], now_ms: Milliseconds
) -> Told:
    """A host has said all that it has and all that it wants: what it leaves out it has not."""
    told = Told(book=book)
    named = {ask.name: ask for ask in asks}
    for name, holding in book.holdings.items():
        if holding.holder.host == host and name not in named:
            told = _changed(told, name, None)
    wanted = [ask.name for ask in named.values() if ask.wants and ask.name in allowed]
    told = replace(told, book=_heard(left(told.book, host), host, wanted, now_ms))
    for ask in named.values():
        if ask.name in allowed:
            told = _answered(told, host, ask, now_ms)
        else:  # what it has runs out, or it says before that that nothing lives there any more
            told = replace(told, answers=(*told.answers, LeaseAnswer(name=ask.name, granted=False)))
    return told


def left(book: Book, host: HostName) -> Book:
    """A host cannot be reached: it has what it has, and is thought of no more when others ask."""
    waiting = {name: {one: at for one, at in hosts.items() if one != host} for name, hosts in book.waiting.items()}
    return replace(book, waiting={name: hosts for name, hosts in waiting.items() if hosts})


def given_up(book: Book, name: LeaseName) -> Told:
    """A person says that its holder runs it no more, and answers for that."""
    return _changed(Told(book=book), name, None)


def _answered(told: Told, host: HostName, ask: LeaseAsk, now_ms: Milliseconds) -> Told:
    holding = told.book.holdings.get(ask.name)
    mine = holding is not None and holding.holder.host == host
    other = _who_goes_before(told.book, host, ask, now_ms)
    if other is not None or not (mine or ask.wants):
        answer = LeaseAnswer(name=ask.name, granted=False, holder=other or "")
        return replace(told, answers=(*told.answers, answer))
    holder = Holder(host=host, hold_ms=_longer(ask.hold_ms, ask.bound_ms))
    fresh = _held(holder, now_ms)
    if mine and holding is not None and holding.holder == holder:
        told = replace(told, book=replace(told.book, holdings={**told.book.holdings, ask.name: fresh}))
    else:
        told = _changed(told, ask.name, fresh)
    return replace(told, answers=(*told.answers, LeaseAnswer(name=ask.name, granted=True)))


def _who_goes_before(book: Book, host: HostName, ask: LeaseAsk, now_ms: Milliseconds) -> HostName | None:
    """Whose lease it is, or is to be; among those that ask in vain, whoever has the fewest: so they are spread."""
    holding = book.holdings.get(ask.name)
    if holding is not None and holding.holder.host == host:
        return None
    if holding is not None and (holding.holder.hold_ms == WITHOUT_END or now_ms < holding.until_ms):
        return holding.holder.host
    if ask.bound_ms:
        return None  # it says that it has it, and nobody else does
    having = [one.holder.host for one in book.holdings.values()]
    best = min({host, *book.waiting.get(ask.name, {})}, key=lambda name: (having.count(name), name != host))
    return best if best != host else None


def _heard(book: Book, host: HostName, names: Iterable[LeaseName], now_ms: Milliseconds) -> Book:
    recent = {
        name: {one: at for one, at in hosts.items() if now_ms < at + HEARD_MS} for name, hosts in book.waiting.items()
    }
    for name in names:
        recent[name] = {**recent.get(name, {}), host: now_ms}
    return replace(book, waiting=recent)


def _changed(told: Told, name: LeaseName, holding: Holding | None) -> Told:
    holdings = {other: one for other, one in told.book.holdings.items() if other != name}
    if holding is not None:
        holdings[name] = holding
    return replace(
        told,
        book=replace(told.book, holdings=holdings),
        changes={**told.changes, name: holding.holder if holding is not None else None},
    )


def _held(holder: Holder, now_ms: Milliseconds) -> Holding:
    return Holding(holder=holder, until_ms=now_ms + holder.hold_ms + MARGIN_MS)


def _longer(one: Milliseconds, other: Milliseconds) -> Milliseconds:
    if WITHOUT_END in (one, other):
        return WITHOUT_END
    return max(one, other)
