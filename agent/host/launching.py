"""What the launches of one decision need, brought together: releases verified once, sockets made many at a time.

Rules: every byte of a release is verified before each decision's launches, and not again for each of them. What cannot
be had is told by the launch that needs it.
"""

import contextlib
from collections.abc import Sequence

from agent.decisions.swap.state import Launch
from agent.errors import RollwayError
from agent.host.assignments import AppKey
from agent.host.launch import addresses, launchable, process_type
from agent.host.releases import Runnable
from agent.host.routes import Routes
from agent.host.services import Services
from agent.model.address import Address
from agent.model.assignment import Assignment, ReleaseRef
from agent.model.ids import ProcessName
from agent.model.process import ProcessType
from agent.supervisor.launchable import Launchable


class Launching:
    """Made anew for each decision."""

    def __init__(self, key: AppKey, services: Services, routes: Routes) -> None:
        self._key = key
        self._services = services
        self._routes = routes
        self._verified: dict[ReleaseRef, Runnable] = {}
        self._types: dict[tuple[ProcessName, ReleaseRef], tuple[Runnable, ProcessType, tuple[Address, ...]]] = {}

    async def open_places(self, launches: Sequence[Launch], assignment: Assignment) -> None:
        """Make the sockets of all of them at once: one after the other costs the square of their number."""
        for first in {(one.process, one.release): one for one in launches}.values():
            slots = [one.slot for one in launches if (one.process, one.release) == (first.process, first.release)]
            with contextlib.suppress(RollwayError):  # met again by each launch, and told there
                _, process, listen = await self._found(first, assignment)
                await self._routes.open(process, slots, listen)

    async def launchable(self, launch: Launch, assignment: Assignment) -> Launchable:
        """What to start. Raises RollwayError."""
        runnable, process, listen = await self._found(launch, assignment)
        return launchable(
            launch,
            assignment=assignment,
            runnable=runnable,
            process=process,
            config=self._services.key.open_config(runnable.release.config, assignment.environment_key),
            listen=listen,
            slot=await self._routes.slot(process, launch.slot, listen),
        )

    async def _found(self, launch: Launch, assignment: Assignment) -> tuple[Runnable, ProcessType, tuple[Address, ...]]:
        what = launch.process, launch.release
        if (found := self._types.get(what)) is None:
            runnable = self._verified.get(launch.release)
            if runnable is None:
                runnable = await self._services.releases.runnable(self._key, launch.release)
                self._verified[launch.release] = runnable
            process = process_type(runnable, launch)
            found = self._types[what] = runnable, process, addresses(process, assignment, self._services.address)
        return found
