"""`/v1/rollouts`, and the orders that begin them."""

import secrets

from aiohttp import web
from msgspec import Struct

from agent.coordinator.actor import Word
from agent.coordinator.api.call import Call, answer
from agent.coordinator.db import rollouts
from agent.coordinator.orders import Asked
from agent.decisions.rollout import begin, view
from agent.decisions.rollout.hosts import stragglers
from agent.decisions.rollout.state import Abort, Pause, Resume
from agent.errors import UsageError
from agent.model.ids import RolloutId
from agent.model.rollout import HostStep, Rollout
from agent.model.units import iso

_WAIT_S_MAX = 60
_CHANGED_MS_MAX = 1 << 53


class Ordered(Struct, frozen=True):
    order: str
    strategy: str | None = None
    plan: bool = False


async def create_rollout(call: Call) -> web.StreamResponse:
    ordered = await call.body(Ordered)
    if ordered.strategy not in (None, "rolling"):
        raise UsageError(f"the strategy {ordered.strategy[:40]!r} is not supported by this version", "Use rolling.")
    asked = Asked(
        app=call.app,
        environment=call.environment,
        order=ordered.order,
        asked_by=call.caller.name,
        rollout_id=RolloutId(f"r-{secrets.token_hex(5)}"),
        plan_only=ordered.plan,
    )
    rollout = await call.server.orders.take(asked)
    if ordered.plan:
        lines = begin.lines(rollout) if rollout.id else (rollout.reason,)
        return answer({"plan": lines, "rollout": shown(rollout)})
    if not rollout.id:
        return answer(shown(rollout))
    call.server.rollouts.start(rollout)
    return answer(shown(rollout), 201)


async def list_rollouts(call: Call) -> web.StreamResponse:
    app, environment = call.where
    found = await call.server.database.run(lambda connection: rollouts.newest(connection, app, environment))
    return answer([shown(rollout) for rollout in found])


async def get_rollout(call: Call) -> web.StreamResponse:
    after_ms, wait_s = call.number("after", None, _CHANGED_MS_MAX), call.number("wait_s", 0, _WAIT_S_MAX)
    if after_ms is None:
        return answer(shown(await call.server.rollouts.get(call.rollout)))
    return answer(shown(await call.server.rollouts.watch(call.rollout, after_ms, float(wait_s or 0))))


async def abort_rollout(call: Call) -> web.StreamResponse:
    return await _say(call, Abort(by=call.caller.name))


async def pause_rollout(call: Call) -> web.StreamResponse:
    return await _say(call, Pause(by=call.caller.name))


async def resume_rollout(call: Call) -> web.StreamResponse:
    return await _say(call, Resume(by=call.caller.name))


async def _say(call: Call, word: Word) -> web.StreamResponse:
    return answer(shown(await call.server.rollouts.say(call.rollout, word)))


def shown(rollout: Rollout) -> dict[str, object]:
    """The shape that scripts depend on."""
    return {
        "id": rollout.id,
        "app": rollout.app,
        "environment": rollout.environment,
        "kind": rollout.kind,
        "release": rollout.release.name,
        "from": rollout.previous.name if rollout.previous is not None else None,
        "strategy": rollout.strategy,
        "state": rollout.state,
        "reason": view.why(rollout),
        "asked_by": rollout.asked_by,
        "created": iso(rollout.created_ms),
        "changed": iso(rollout.changed_ms),
        "changed_ms": rollout.changed_ms,
        "hosts": [_host(rollout, step) for step in rollout.hosts],
        "migration": rollout.migration,
        "stragglers": stragglers(rollout),
    }


def _host(rollout: Rollout, step: HostStep) -> dict[str, object]:
    told = view.told(rollout, step)
    return {
        "host": step.host,
        "state": view.word(rollout, step),
        "reason": view.reason(rollout, step),
        "release": told.name if told is not None else None,
        "slow_starts_ms": step.slow_starts_ms,
    }
