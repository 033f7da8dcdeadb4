"""What one load balancer is told next, so that it is as wished; and how far it is with each server.

Rules: what the balancer shows is the truth, not what it was told: it forgets at each reload and restart, so every look
is compared anew. Whoever gets users is put in before anybody is taken out. A server that is wished out is drained until
no session is left, twice in a row, or they have had their time; then comes maintenance, for a client that a cookie
binds to it gets there through a drain. Only where the balancer itself shows all that it counts as drained. While it
gives no answer nobody knows, and nothing counts. A server of this host's that nobody wishes goes the same way and is
then removed. Others' are left alone.

A process of the balancer that is younger than a drain may take may have followed one that still has sessions, which
the new one does not see (a reload): until it is old enough only the time counts, not their absence.

Not handled here: sockets, how a command is spelled, several balancers (`overall`, below, is what they say together).
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from agent.model.balancer import (
    Add,
    BalancerCommand,
    EnableChecks,
    Look,
    Remove,
    Seen,
    SetAddress,
    SetAdmin,
    SetWeight,
    Standing,
    Wanted,
    Wish,
)
from agent.model.units import Instant, Milliseconds, elapsed_ms, say_duration

BUSY_MS: Final = 100
"""The pause between two looks while something is under way."""
REST_MS: Final = 500
"""The pause otherwise: so long a reload may be forgotten, and a balancer that refuses or is silent is left alone."""
QUIET_MS: Final = BUSY_MS
"""Without a session for so long: a thread of the balancer may have picked the server just before it was drained."""
COMMANDS_MAX: Final = 64
"""At once: the others come after the next look."""


class Drain(Struct, frozen=True, kw_only=True):
    """A server that is wished out, since the balancer has shown it so."""

    since: Instant
    quiet_since: Instant | None = None


class BalancerState(Struct, frozen=True, kw_only=True):
    """One balancer as it is known. Nothing of it is stored: a next agent wishes the same, and looks."""

    wish: Wish | None = None
    """None: nobody has said yet what there is to be, so that nothing may be taken for superfluous."""
    process: int | None = None
    drains: dict[str, Drain] = {}
    standings: dict[str, Standing] = {}
    """Of what is wished, and of what is there of this host's besides; as of the last answer."""
    is_fresh: bool = False
    """Whether there was an answer since it was last wished: what stood for one wish is no answer to another."""
    failure: str = "not asked yet"
    """Why nobody knows how it is; empty once it has answered the last question."""


class Wished(Struct, frozen=True):
    wish: Wish


class Looked(Struct, frozen=True, kw_only=True):
    """An answer, and what was refused of the commands since the look before, by server."""

    look: Look
    refused: dict[str, str] = {}


class Unanswered(Struct, frozen=True):
    reason: str


BalancerEvent = Wished | Looked | Unanswered


class BalancerDecision(Struct, frozen=True, kw_only=True):
    state: BalancerState
    commands: tuple[BalancerCommand, ...] = ()
    """In this order; after one that is refused the others of the same server are not said."""
    look_again_ms: Milliseconds = 0


def step(state: BalancerState, event: BalancerEvent, prefix: str, now: Instant) -> BalancerDecision:
    """Take one event in; `prefix` is what names of this host's servers begin with."""
    match event:
        case Wished(wish=wish):
            drains = {name: drain for name, drain in state.drains.items() if not _is_admitted(wish, name)}
            return BalancerDecision(state=replace(state, wish=wish, drains=drains, is_fresh=False))
        case Unanswered(reason=reason):
            return BalancerDecision(state=replace(state, failure=reason, is_fresh=False), look_again_ms=REST_MS)
        case Looked():
            return _looked(state, event, prefix, now)


def _is_admitted(wish: Wish, name: str) -> bool:
    return any(server.name == name and server.admitted for server in wish.servers)


def _looked(state: BalancerState, event: Looked, prefix: str, now: Instant) -> BalancerDecision:
    wish, look = state.wish, event.look
    if wish is None:
        return BalancerDecision(state=replace(state, process=look.process, failure=""), look_again_ms=REST_MS)
    seen = {server.name: server for server in look.servers}
    wanted = {server.name: server for server in wish.servers}
    owned = {name for name in seen if name.startswith(prefix)} | wanted.keys()
    out = {name for name in owned if name not in wanted or not wanted[name].admitted}
    drains = {
        name: _drain(state.drains.get(name), seen.get(name), now)
        for name in out
        if name not in seen or _is_out(seen[name])
    }
    standings: dict[str, Standing] = {}
    said: list[tuple[int, BalancerCommand]] = []
    for name in sorted(owned):
        if name not in out:
            standings[name] = _admission(wanted[name], seen.get(name))
            said += _admit(wanted[name], seen.get(name))
            continue
        standings[name], emptied = _departure(seen.get(name), drains.get(name), wish.drain_ms, look.uptime_ms, now)
        if name in seen:
            said += _dismiss(seen[name], emptied=emptied, stays=name in wanted)
    for name, reason in event.refused.items():
        if name in standings and standings[name].state in ("admitting", "draining"):
            standings[name] = replace(standings[name], detail=reason)
    commands = tuple(command for _, command in sorted(said, key=lambda one: one[0]))[:COMMANDS_MAX]
    draining = any(standing.state == "draining" for standing in standings.values())
    busy = (commands or draining) and not event.refused
    return BalancerDecision(
        state=replace(state, process=look.process, drains=drains, standings=standings, is_fresh=True, failure=""),
        commands=commands,
        look_again_ms=BUSY_MS if busy else REST_MS,
    )


def _is_out(server: Seen) -> bool:
    return server.maintenance or server.draining


# Who gets users


def _admission(wanted: Wanted, server: Seen | None) -> Standing:
    if server is None:
        return Standing(state="admitting", detail="not added yet")
    if not _is_at(server, wanted):
        return Standing(state="admitting", detail=f"still leads to {server.host} port {server.port}")
    if _is_out(server):
        return Standing(state="admitting", detail="out of use, not made ready yet")
    if server.held:
        return Standing(state="admitting", detail="held back by the balancer's own configuration")
    if not server.up:
        return Standing(state="admitting", detail="the balancer's own health checks fail")
    return Standing(state="admitted")


def _admit(wanted: Wanted, server: Seen | None) -> list[tuple[int, BalancerCommand]]:
    """Bring it in, first of all that is said. Its address changes only while it is in maintenance."""
    name = wanted.name
    if server is None:
        add = Add(name, wanted.address, wanted.weight)
        return [(0, add), (0, EnableChecks(name)), (0, SetAdmin(name, "ready"))]
    if not _is_at(server, wanted):
        moved = SetAddress(name, wanted.address) if server.maintenance else SetAdmin(name, "maint")
        return [(1, moved)]
    commands: list[BalancerCommand] = []
    if server.checks_off:
        commands.append(EnableChecks(name))
    if server.weight != wanted.weight:
        commands.append(SetWeight(name, wanted.weight))
    if _is_out(server):
        commands.append(SetAdmin(name, "ready"))
    return [(0, command) for command in commands]


def _is_at(server: Seen, wanted: Wanted) -> bool:
    return (server.host, server.port) == (wanted.address.host, wanted.address.port)


# Who gets none


def _drain(before: Drain | None, server: Seen | None, now: Instant) -> Drain:
    since = before.since if before else now
    if server is not None and server.sessions:
        return Drain(since=since)
    quiet_since = before.quiet_since if before else None
    return Drain(since=since, quiet_since=quiet_since or now)


def _departure(
    server: Seen | None, drain: Drain | None, drain_ms: Milliseconds, uptime_ms: Milliseconds, now: Instant
) -> tuple[Standing, bool]:
    """How far it is, and whether nobody is there any more or has had the time for it."""
    if drain is None:
        return Standing(state="draining", detail="still in use"), False
    sessions = server.sessions if server else 0
    if elapsed_ms(drain.since, now) < drain_ms:
        if sessions:
            return Standing(state="draining", detail=f"{sessions} sessions left"), False
        if uptime_ms < drain_ms:
            return Standing(state="draining", detail="a process before a reload may have sessions left"), False
        if drain.quiet_since is None or elapsed_ms(drain.quiet_since, now) < QUIET_MS:
            return Standing(state="draining", detail="no session left just now"), False
    if server is not None and not server.maintenance:
        return Standing(state="draining", detail="not in maintenance yet"), True
    left = f"{sessions} sessions left after {say_duration(drain_ms)}" if sessions else ""
    return Standing(state="drained", detail=left), True


def _dismiss(server: Seen, *, emptied: bool, stays: bool) -> list[tuple[int, BalancerCommand]]:
    """Take it out, after whoever comes in; one that nobody wishes any more for good."""
    if not _is_out(server):
        return [(2, SetAdmin(server.name, "drain"))]
    if not emptied:
        return []
    if not server.maintenance:
        return [(3, SetAdmin(server.name, "maint"))]
    return [] if stays else [(3, Remove(server.name))]


# Several balancers


def overall(name: str, states: Mapping[str, BalancerState], *, admitted: bool) -> Standing:
    """How far all balancers (by what names them) are with one server, given whether it is wished in: the slowest."""
    order = ("unknown", "admitting", "draining", "admitted", "drained", "gone")
    if not states:
        return Standing(state="admitted" if admitted else "drained")
    slowest = min(
        ((_standing(state, name), which) for which, state in sorted(states.items())),
        key=lambda found: order.index(found[0].state),
    )
    standing, which = slowest
    return replace(standing, detail=f"{which}: {standing.detail}") if standing.detail else standing


def _standing(state: BalancerState, name: str) -> Standing:
    if not state.is_fresh:
        return Standing(state="unknown", detail=state.failure or "not looked at yet")
    return state.standings.get(name, Standing(state="gone"))
