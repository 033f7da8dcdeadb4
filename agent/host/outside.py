"""What of an agent speaks with coordinators, balancers and people: imported and begun once its instances are started.

Rules: nothing that the host is to run waits for any of it; its libraries take as long to import as all the rest of a
start. Its sockets are open since the agent's start: who connects before it serves waits, and is answered.
Not handled here: what any of the parts does.
"""

import random
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from socket import socket
from typing import Final

import anyio
import structlog
from aiohttp import web
from anyio import CapacityLimiter, to_thread
from msgspec.structs import replace

from agent import __version__
from agent.host import byhand, certificate, health
from agent.host.control import Control
from agent.host.host import Host
from agent.link.dial import Dialer
from agent.link.fetch import Fetcher
from agent.link.runs import dialled
from agent.linux import clock
from agent.model.roles import AgentSettings
from agent.telemetry.metrics import Metrics, Seen
from agent.telemetry.output import Stdout
from agent.telemetry.pulse import Pulse
from agent.traffic import agentcheck
from agent.web.bounds import RUNNER_LIMITS
from agent.web.health import Health
from agent.wire.control import Link
from agent.wire.messages import PROTOCOL, Hello

HTTP_SHUTDOWN_S: Final = 1.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Outside:
    """One agent's; `serving` is all of it at work."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        host: Host,
        recipient: str,
        tls: ssl.SSLContext,
        stdout: Stdout,
        metrics: Metrics,
        pulse: Pulse,
        on_link: Callable[[], None],
    ) -> None:
        """`recipient` is the host's public age key; `on_link` is called when the link is there, and when it is lost."""
        self._settings, self._host, self._tls = settings, host, tls
        self._stdout, self._metrics, self._one_scrape = stdout, metrics, CapacityLimiter(1)
        self._link, self._on_link = Link(), on_link
        self.source: Final = Fetcher(coordinators=settings.coordinators, tls=tls)
        self._dialer = Dialer(
            coordinators=settings.coordinators,
            tls=tls,
            hello=_hello(settings, recipient),
            rng=random.Random(),  # noqa: S311 - spreads reconnects, keeps no secret
            on_assign=host.assign,
            tail=host.tail,
            leases=host.leases,
            measure=host.figures,
            on_run=lambda url, run: host.runs.begin(lambda: dialled(url, run, tls)),
            on_connected=self._linked,
        )
        self.health: Final = Health(
            {
                "event-loop": pulse.fault,
                "stored-state": lambda: "" if host.loaded else "not loaded yet",
                "host": lambda: "drained: see `rollway agent undrain`" if host.drained else "",
            }
        )

    @property
    def linked(self) -> bool:
        return self._link.up

    def report(self) -> None:
        """Have the coordinator told how the host is: there is news."""
        self._dialer.report(self._host.reports)

    @asynccontextmanager
    async def serving(self, control: Control, http: Sequence[socket], checked: Sequence[socket]) -> AsyncIterator[None]:
        """Answer on all of these, and keep the link."""
        self.report()
        async with anyio.create_task_group() as tasks, self._http(http):
            tasks.start_soon(self._dialer.run)
            for listening in checked:
                tasks.start_soon(agentcheck.serve, listening, partial(health.agent_check, self._host))
            tasks.start_soon(certificate.keep_renewed, self._settings.tls, self._settings.coordinators, self._tls)
            self.health.started = True
            async with byhand.serving(control, self._host, self._link_now):
                yield
            tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def _http(self, http: Sequence[socket]) -> AsyncIterator[None]:
        application = health.application(self._host, self.health, self._metrics_text)
        runner = web.AppRunner(application, shutdown_timeout=HTTP_SHUTDOWN_S, **RUNNER_LIMITS)
        await runner.setup()
        try:
            for listening in http:
                await web.SockSite(runner, listening).start()
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await runner.cleanup()

    async def _metrics_text(self) -> bytes:
        seen = Seen(
            version=__version__,
            apps=self._host.reports(),
            connected=self._link.up,
            unsent_bytes=self._stdout.unsent_bytes,
            sent_bytes=self._stdout.sent_bytes,
            lost_records=self._stdout.lost_records,
        )
        return await to_thread.run_sync(self._metrics.text, seen, limiter=self._one_scrape)

    def _linked(self, connected: bool) -> None:  # noqa: FBT001 - one fact
        self._link = Link(connected, clock.now().wall_ms)
        self._on_link()
        log.info("link", connected=connected)

    def _link_now(self) -> Link:
        lost = self._dialer.lost
        return self._link if lost is None else replace(self._link, reason=lost.reason, what_to_do=lost.what_to_do)


def _hello(settings: AgentSettings, recipient: str) -> Hello:
    return Hello(
        protocol=PROTOCOL,
        host=settings.name,
        boot_id=clock.boot_id(),
        version=__version__,
        age_recipient=recipient,
        labels=settings.labels,
        environments=settings.environments,
        address=settings.address or "",
        leases=True,
    )
