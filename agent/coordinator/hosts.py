"""The hosts: who they are, what they last said, and what they are sent.

Rules: a host is known from its first hello on until it is removed; what it reports is kept in memory alone, for it is
said again at each connection. Over what a host says of itself stands what operators decided: a member serves no other
environment than it was let in for, has the labels that it was given, and connects with the key that it joined with.
An assignment is stored without the environment's key, which is wrapped to the host when it is sent.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Final, Protocol

import anyio
import structlog
from msgspec.structs import replace
from sqlalchemy import Connection

from agent.coordinator.db import environments, fleet, members, rollouts
from agent.coordinator.db.engine import Database
from agent.coordinator.db.environments import EnvironmentRow
from agent.coordinator.db.members import Member
from agent.coordinator.environments import settings_of
from agent.coordinator.keys import CoordinatorKey
from agent.coordinator.leases import Leases
from agent.decisions.shares import Place
from agent.errors import FailedError, ForbiddenError, NotFoundError, RefusedError
from agent.link.accept import Links
from agent.link.peers import Peer, key_id
from agent.linux import clock
from agent.model.assignment import AppReport, Assignment, HostReport
from agent.model.environment import EnvironmentSettings
from agent.model.ids import AppName, EnvironmentName, HostName, is_name
from agent.model.lease import LeaseAnswer, LeaseAsk
from agent.model.units import Milliseconds
from agent.wire.messages import Hello

_PARTS: Final = re.compile(r"(\D*)(\d*)")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Follower(Protocol):
    """Who acts on what hosts do."""

    async def host_connected(self, host: HostName) -> None: ...

    def host_reported(self, host: HostName, report: AppReport) -> None: ...

    def host_disconnected(self, host: HostName) -> None: ...

    async def hosts_changed(self) -> None: ...


class Hosts:
    """Listens to the link. `follower` is set before anybody can connect."""

    def __init__(
        self,
        database: Database,
        key: CoordinatorKey,
        epoch: int,
        known: Iterable[Hello],
        decided: Iterable[Member],
        *,
        leases: Leases,
        lease_ms: Milliseconds,
    ) -> None:
        self._database, self._key, self._leases = database, key, leases
        self._members = {member.name: member for member in decided}
        self._hellos = {hello.host: self._as_decided(hello) for hello in known}
        self._order = _ordered(self._hellos)
        self._reports: dict[HostName, HostReport] = {}
        self._since_ms = dict.fromkeys(self._hellos, clock.now().wall_ms)
        self.links = Links(epoch=epoch, listener=self, lease_ms=lease_ms)
        self._changed = anyio.Event()
        self.follower: Follower

    @property
    def hellos(self) -> tuple[Hello, ...]:
        """Every host that ever connected, in order of name."""
        return tuple(self._hellos[host] for host in self._order)

    @property
    def expected(self) -> tuple[Member, ...]:
        """Hosts that have joined and have not connected yet, in order of name."""
        there = {name for name, member in self._members.items() if not member.removed_ms}
        return tuple(self._members[name] for name in _ordered(there - self._hellos.keys()))

    def served(self) -> frozenset[EnvironmentName]:
        served = [hello.environments for hello in self._hellos.values()]
        return frozenset(chain(*served, *(member.environments for member in self.expected)))

    def admit(self, peer: Peer) -> None:
        """Refuse who was removed, and whoever has a certificate for another key than the member of his name."""
        member = self._members.get(HostName(peer.name))
        if member is None:
            return
        if member.removed_ms:
            raise ForbiddenError(
                f"{peer.name} was removed from the fleet",
                "Let it join again: `rollway agent join TOKEN` on the host, with a new one of `rollway host token`.",
            )
        if member.public_key not in ("", key_id(peer.public_key)):
            raise ForbiddenError(f"the certificate is not that of the {peer.name} which is in the fleet now")

    def joined(self, member: Member) -> None:
        """Take in a member that was stored."""
        self._members[member.name] = member

    async def label(self, host: HostName, changes: Mapping[str, str | None]) -> Member:
        """Change labels, None removing one; from then on they are the host's labels whatever it says of itself."""
        now_ms = clock.now().wall_ms
        if (before := self._member(host)) is None:
            raise _no_such(host)
        labels = {**before.labels, **changes}
        member = replace(before, labels={key: value for key, value in labels.items() if value is not None})
        member = replace(member, joined_ms=member.joined_ms or now_ms)
        with anyio.CancelScope(shield=True):
            await self._database.run(lambda connection: members.store(connection, member))
            self._members[host] = member
            if host in self._hellos:
                self._hellos[host] = replace(self._hellos[host], labels=member.labels)
            await self.follower.hosts_changed()
        return member

    async def remove(self, host: HostName) -> Member:
        """Out of the fleet, at once and for good: its certificates are refused and its link is closed."""
        if (before := self._member(host)) is None:
            raise _no_such(host)
        member = replace(before, removed_ms=clock.now().wall_ms)

        def write(connection: Connection) -> None:
            members.store(connection, member)
            members.forget(connection, host)

        with anyio.CancelScope(shield=True):
            await self._database.run(write)
            self._members[host] = member
            self._forget(host)
            self.links.drop(host, "the host was removed from the fleet")
            await self.follower.hosts_changed()
        return member

    def _forget(self, host: HostName) -> None:
        self._hellos.pop(host, None)
        self._reports.pop(host, None)
        self._since_ms.pop(host, None)
        self._order = _ordered(self._hellos)

    def _member(self, host: HostName) -> Member | None:
        """What is decided about a host, or, where nothing is, what it says of itself; None: there is no such host."""
        member, hello = self._members.get(host), self._hellos.get(host)
        if member is not None:
            return None if member.removed_ms else member
        if hello is None:
            return None
        return Member(name=host, environments=hello.environments, labels=hello.labels, joined_ms=0)

    def _as_decided(self, hello: Hello) -> Hello:
        member = self._members.get(hello.host)
        if member is None:
            return hello
        allowed = tuple(name for name in hello.environments if name in member.environments)
        return replace(hello, environments=allowed, labels=member.labels)

    def members(self, environment: EnvironmentName, settings: EnvironmentSettings) -> tuple[HostName, ...]:
        """Hosts of the environment, in the order in which they move: h2 comes before h10."""
        return tuple(host for host in self._order if self.belongs(host, environment, settings))

    def belongs(self, host: HostName, environment: EnvironmentName, settings: EnvironmentSettings) -> bool:
        return self.serves(host, environment) and settings.includes(host, self._hellos[host].labels)

    def serves(self, host: HostName, environment: EnvironmentName) -> bool:
        return host in self._hellos and environment in self._hellos[host].environments

    def report(self, host: HostName, app: AppName, environment: EnvironmentName) -> AppReport | None:
        """What a connected host says of one app and environment."""
        return next((r for r in self.reports(host) if (r.app, r.environment) == (app, environment)), None)

    def reports(self, host: HostName) -> tuple[AppReport, ...]:
        known = self._reports.get(host)
        return known.apps if known is not None and self.links.is_connected(host) else ()

    def is_known(self, host: HostName) -> bool:
        """Whether the host is connected and has said what runs there; that a host is away does not stop its apps."""
        return host in self._reports and self.links.is_connected(host)

    async def changed(self) -> None:
        """Wait until any host says something, or comes, or goes."""
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def since_ms(self, host: HostName) -> Milliseconds:
        """Since when the host is connected, or is not; at the earliest since the coordinator's start."""
        return self._since_ms[host]

    def send(self, assignments: Mapping[HostName, Assignment], row: EnvironmentRow) -> None:
        """Send what is stored to those of the hosts that are connected; the others get it when they come."""
        for host, assignment in assignments.items():
            if self.links.is_connected(host) and host in self._hellos:
                self.links.assign(host, replace(assignment, environment_key=self._wrapped(host, row)))

    def _wrapped(self, host: HostName, row: EnvironmentRow) -> str | None:
        """The environment's key for the host; without it the host itself says which secrets it cannot open."""
        try:
            return self._key.wrap(row.identity, self._hellos[host].age_recipient)
        except FailedError as error:
            log.error("a host goes without its key", host=host, environment=row.environment, reason=error.error)  # noqa: TRY400
            return None

    async def connected(self, hello: Hello) -> None:
        if not self._key.is_recipient(hello.age_recipient) or not all(map(is_name, hello.environments)):
            raise RefusedError(f"the hello of {hello.host} has a wrong age recipient or environment")
        now_ms, host = clock.now().wall_ms, hello.host

        def write(connection: Connection) -> None:
            member = members.get(connection, host)
            if member is not None and member.removed_ms:
                raise ForbiddenError(f"{host} was removed from the fleet")
            fleet.store_host(connection, hello, now_ms)

        if host not in self._hellos:
            self._order = _ordered([*self._order, host])
        self._hellos[host] = self._as_decided(hello)
        self._since_ms[host] = now_ms
        try:
            await self._database.run(write)
        except ForbiddenError:
            self._forget(host)
            raise
        held = await self._database.run(lambda connection: rollouts.assigned_to(connection, host))
        rows = {(row.app, row.environment): row for row in await self._database.run(environments.every)}
        for assignment in held:
            if not self.serves(host, assignment.environment):
                continue
            self.send({host: assignment}, rows[assignment.app, assignment.environment])
        await self.follower.host_connected(host)

    def reported(self, report: HostReport) -> None:
        self._reports[report.host] = report
        self._tell()
        for app in report.apps:
            self.follower.host_reported(report.host, app)

    async def lease_asks(self, host: HostName, asks: tuple[LeaseAsk, ...]) -> tuple[LeaseAnswer, ...]:
        places = {ask.name[:2] for ask in asks}

        def read(connection: Connection) -> dict[Place, tuple[HostName, ...]]:
            """Of which places the host is, and who of them is about to move there."""
            here: dict[Place, tuple[HostName, ...]] = {}
            for place in places:
                row = environments.get(connection, *place)
                if row is not None and self.belongs(host, row.environment, settings_of(row)):
                    live = rollouts.live_in(connection, *place)
                    moving = [step.host for step in live.hosts if step.reachable and not step.aside] if live else []
                    here[place] = tuple(moving)
            return here

        here = await self._database.run(read) if places else {}
        return await self._leases.ask(host, asks, here)

    def disconnected(self, host: HostName) -> None:
        self._reports.pop(host, None)
        self._leases.left(host)
        if host in self._hellos:
            self._since_ms[host] = clock.now().wall_ms
        self._tell()
        self.follower.host_disconnected(host)


def _no_such(host: HostName) -> NotFoundError:
    return NotFoundError(f"there is no host {host}", "See `rollway host list`.")


def _ordered(names: Iterable[HostName]) -> list[HostName]:
    return sorted(names, key=lambda name: [(text, int(digits or 0)) for text, digits in _PARTS.findall(name)])
