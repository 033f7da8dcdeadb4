"""The hosts: who they are, what they last said, and what they are sent.

Rules: a host is known from its first hello on, for ever; what it reports is kept in memory alone, for it is said again
at each connection. An assignment is stored without the environment's key, which is wrapped to the host when it is sent.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from agent.coordinator.db import environments, fleet, rollouts
from agent.coordinator.db.engine import Database
from agent.coordinator.db.environments import EnvironmentRow
from agent.coordinator.keys import CoordinatorKey
from agent.errors import FailedError, RefusedError
from agent.link.accept import Links
from agent.linux import clock
from agent.model.assignment import AppReport, Assignment, HostReport
from agent.model.environment import EnvironmentSettings
from agent.model.ids import AppName, EnvironmentName, HostName, is_name
from agent.model.units import Milliseconds
from agent.wire.messages import Hello

_PARTS: Final = re.compile(r"(\D*)(\d*)")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Follower(Protocol):
    """Who acts on what hosts do."""

    async def host_connected(self, host: HostName) -> None: ...

    def host_reported(self, host: HostName, report: AppReport) -> None: ...

    def host_disconnected(self, host: HostName) -> None: ...


class Hosts:
    """Listens to the link. `follower` is set before anybody can connect."""

    def __init__(self, database: Database, key: CoordinatorKey, epoch: int, known: Iterable[Hello]) -> None:
        self._database, self._key = database, key
        self._hellos = {hello.host: hello for hello in known}
        self._order = _ordered(self._hellos)
        self._reports: dict[HostName, HostReport] = {}
        self._since_ms = dict.fromkeys(self._hellos, clock.now().wall_ms)
        self.links = Links(epoch=epoch, listener=self)
        self.follower: Follower

    @property
    def hellos(self) -> tuple[Hello, ...]:
        """Every host that ever connected, in order of name."""
        return tuple(self._hellos[host] for host in self._order)

    def served(self) -> frozenset[EnvironmentName]:
        return frozenset(name for hello in self._hellos.values() for name in hello.environments)

    def members(self, environment: EnvironmentName, settings: EnvironmentSettings) -> tuple[HostName, ...]:
        """Hosts of the environment, in the order in which they move: h2 comes before h10."""
        return tuple(host for host in self._order if self.belongs(host, environment, settings))

    def belongs(self, host: HostName, environment: EnvironmentName, settings: EnvironmentSettings) -> bool:
        return self.serves(host, environment) and settings.includes(host, self._hellos[host].labels)

    def serves(self, host: HostName, environment: EnvironmentName) -> bool:
        return environment in self._hellos[host].environments

    def report(self, host: HostName, app: AppName, environment: EnvironmentName) -> AppReport | None:
        """What a connected host says of one app and environment."""
        return next((r for r in self.reports(host) if (r.app, r.environment) == (app, environment)), None)

    def reports(self, host: HostName) -> tuple[AppReport, ...]:
        known = self._reports.get(host)
        return known.apps if known is not None and self.links.is_connected(host) else ()

    def since_ms(self, host: HostName) -> Milliseconds:
        """Since when the host is connected, or is not; at the earliest since the coordinator's start."""
        return self._since_ms[host]

    def send(self, assignments: Mapping[HostName, Assignment], row: EnvironmentRow) -> None:
        """Send what is stored to those of the hosts that are connected; the others get it when they come."""
        for host, assignment in assignments.items():
            if self.links.is_connected(host):
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
        if host not in self._hellos:
            self._order = _ordered([*self._order, host])
        self._hellos[host] = hello
        self._since_ms[host] = now_ms
        await self._database.run(lambda connection: fleet.store_host(connection, hello, now_ms))
        held = await self._database.run(lambda connection: rollouts.assigned_to(connection, host))
        rows = {(row.app, row.environment): row for row in await self._database.run(environments.every)}
        for assignment in held:
            self.send({host: assignment}, rows[assignment.app, assignment.environment])
        await self.follower.host_connected(host)

    def reported(self, report: HostReport) -> None:
        self._reports[report.host] = report
        for app in report.apps:
            self.follower.host_reported(report.host, app)

    def disconnected(self, host: HostName) -> None:
        self._reports.pop(host, None)
        self._since_ms[host] = clock.now().wall_ms
        self.follower.host_disconnected(host)


def _ordered(names: Iterable[HostName]) -> list[HostName]:
    return sorted(names, key=lambda name: [(text, int(digits or 0)) for text, digits in _PARTS.findall(name)])
