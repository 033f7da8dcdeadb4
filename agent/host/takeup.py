"""Takes up the instances of one app and environment that an earlier agent left running, before anything is decided.

Rules: no process is touched, and none is given up: one whose socket is lost, or whose config cannot be opened any more,
runs on. Config is opened anew when an instance is to be started again: no record may hold it.
"""

from collections.abc import Callable
from functools import partial

import structlog

from agent.decisions.swap.state import SwapState
from agent.errors import RollwayError
from agent.host.assignments import AppKey
from agent.host.launch import WITHOUT_BYTECODE, adoptable
from agent.host.routes import Routes, Slot
from agent.host.services import Services
from agent.model.address import parse_address
from agent.model.assignment import ReleaseRef

log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def take_up(key: AppKey, services: Services, routes: Routes, state: Callable[[], SwapState]) -> bool:
    """Whether there was anything. `state` gives the newest: a later assignment brings the environment's key anew."""
    records = services.supervisor.left(*key)
    await routes.adopt(services.inherited, records, state().spec)
    for record in records:
        if (kept := record.instance) is None:
            continue
        slot = Slot()
        try:
            slot = await routes.slot(kept.type, record.key.slot, tuple(map(parse_address, kept.addresses)))
        except RollwayError as error:
            log.warning("a listening socket is lost", app=key.app, instance=record.key.name, reason=str(error))
        services.supervisor.adopt(adoptable(record, kept, slot, partial(_config, key, kept.release, services, state)))
    return bool(records)


async def _config(key: AppKey, ref: ReleaseRef, services: Services, state: Callable[[], SwapState]) -> dict[str, str]:
    runnable = await services.releases.runnable(key, ref)
    assignment = state().assignment
    environment_key = assignment.environment_key if assignment is not None else None
    return {**WITHOUT_BYTECODE, **services.key.open_config(runnable.release.config, environment_key)}
