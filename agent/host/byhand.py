"""By hand: what a person on the host may ask and order, by the agent's own socket, while no coordinator answers.

Rules: a connection is answered for root, the agent's own user, and members of the group `rollway`, by the kernel's word
alone; what is meant stands in the query, and no body is read; what takes its time answers line by line and goes on when
nobody listens any more. Not handled here: what is decided of it (`decisions.swap`), the socket (`host.control`).
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Final

import anyio
import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from msgspec import Struct
from msgspec.structs import replace

from agent import __version__
from agent.decisions.swap.hand import pending, unknown
from agent.decisions.swap.state import RestartAsked, StopAsked, UnpinAsked
from agent.errors import FailedError, ForbiddenError, NotFoundError, UsageError
from agent.host.control import Control
from agent.host.converge import Actor
from agent.host.host import Host
from agent.linux import clock
from agent.linux.peercred import peer_of
from agent.model.ids import NAME_EXPECTED, ProcessName, is_name
from agent.model.units import say_duration
from agent.web.bounds import RUNNER_LIMITS
from agent.web.errors import errors_as_json
from agent.wire.control import BEAT_S, GROUP, AgentStatus, Link, Progress, WentBack, rows
from agent.wire.messages import TailLogs
from agent.wire.tailed import records

SHUTDOWN_S: Final = 0.5
DIGITS_MAX: Final = 12


log: structlog.stdlib.BoundLogger = structlog.get_logger()


@asynccontextmanager
async def serving(control: Control, host: Host, link: Callable[[], Link] = Link) -> AsyncIterator[None]:
    """Answer on the socket; `link` tells how the agent stands with its coordinator."""
    runner = web.AppRunner(
        application(host, control.group, link),
        access_log=None,
        shutdown_timeout=SHUTDOWN_S,
        handler_cancellation=True,
        **RUNNER_LIMITS,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, control.socket).start()
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


def application(host: Host, group: int | None, link: Callable[[], Link]) -> web.Application:
    routes = Routes(host, link)
    made = web.Application(middlewares=[errors_as_json, _only_for(group)])
    made.router.add_get("/v1/status", routes.status)
    made.router.add_get("/v1/instances", routes.instances)
    made.router.add_get("/v1/logs", routes.logs)
    for verb in ("drain", "undrain", "restart", "stop", "rollback", "unpin"):
        made.router.add_post(f"/v1/{verb}", getattr(routes, verb))
    return made


class Routes:
    """What may be asked. What is meant stands in the query: app, environment, process, slot."""

    def __init__(self, host: Host, link: Callable[[], Link]) -> None:
        self._host, self._link = host, link
        self._since_ms = clock.now().wall_ms

    async def status(self, _request: web.Request) -> web.StreamResponse:
        link = self._link()
        return _answer(
            AgentStatus(
                host=self._host.name,
                version=__version__,
                pid=os.getpid(),
                since_ms=self._since_ms,
                drained=self._host.drained,
                linked=link.up,
                link_since_ms=link.since_ms,
                link_reason=link.reason,
                link_what_to_do=link.what_to_do,
                pins=self._host.pins(),
            )
        )

    async def instances(self, request: web.Request) -> web.StreamResponse:
        app, environment = request.query.get("app"), request.query.get("environment")
        if app is not None:
            self._host.find(app, environment)
        is_wide = _number(request, "figures", 0) == 1
        figures = await self._host.figures(app, environment) if is_wide else ()
        shown = [
            row
            for told in self._host.reports()
            if app in (None, told.app) and environment in (None, told.environment)
            for row in rows(self._host.name, told, figures)
        ]
        return web.Response(body=msgspec.json.encode(shown), content_type="application/json")

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Records of instances, each with the host's name, as a coordinator gives them."""
        actor = self._host.find(request.query.get("app", ""), request.query.get("environment"))
        process, slot = _instances(request)
        _check(actor, process, slot)
        ask = TailLogs(
            tail=0,
            app=actor.key.app,
            environment=actor.key.environment,
            process=process,
            slot=slot,
            lines=_number(request, "lines", 100),
            follow=_number(request, "follow", 0) == 1,
        )
        response = await _stream(request)
        async with aclosing(self._host.tail(ask)) as batches:
            async for batch in batches:
                await response.write(b"".join(records(self._host.name, batch)))
        await response.write_eof()
        return response

    async def restart(self, request: web.Request) -> web.StreamResponse:
        """Fresh instances for those that run, and those back that were stopped; told until all are ready."""
        process, slot = _instances(request)
        return await self._by_hand(request, RestartAsked(process=process, slot=slot))

    async def stop(self, request: web.Request) -> web.StreamResponse:
        """Drain instances, which stay stopped; told until they are gone."""
        process, slot = _instances(request)
        return await self._by_hand(request, StopAsked(process=process, slot=slot))

    async def rollback(self, request: web.Request) -> web.StreamResponse:
        """Back to the release before, and stay there; answers when it is begun."""
        actor = self._actor(request)
        release = await self._host.go_back(actor)
        return _answer(WentBack(environment=actor.key.environment, release=release.name))

    async def unpin(self, request: web.Request) -> web.StreamResponse:
        """Follow again what is assigned."""
        actor = self._actor(request)
        await actor.ask(UnpinAsked())
        assigned = actor.state.assignment.release if actor.state.assignment else None
        return _answer(WentBack(environment=actor.key.environment, release=assigned.name if assigned else None))

    async def drain(self, request: web.Request) -> web.StreamResponse:
        """Stop everything; tell what is left until nothing is, or it takes longer than the stop policies allow."""
        patience_s = _number(request, "timeout_ms", round(self._host.patience_s * 1000)) / 1000
        await self._host.stay_drained()
        return await self._tell(request, lambda: Progress(left=self._host.undrained()), patience_s)

    async def undrain(self, _request: web.Request) -> web.StreamResponse:
        try:
            self._host.undrain()
        except OSError as error:
            raise FailedError(
                f"cannot undrain: {error.strerror}: {error.filename}", "Correct it, and try again."
            ) from error
        return web.json_response({})

    def _actor(self, request: web.Request) -> Actor:
        return self._host.find(request.query.get("app", ""), request.query.get("environment"))

    async def _by_hand(self, request: web.Request, wish: RestartAsked | StopAsked) -> web.StreamResponse:
        actor = self._actor(request)
        _check(actor, wish.process, wish.slot)
        await actor.ask(wish)

        def look() -> Progress:
            renewal = actor.state.renewal
            failure = renewal.failure if renewal is not None and isinstance(wish, RestartAsked) else ""
            left = tuple(f"{name} {state}" for name, state in pending(actor.state, wish))
            return Progress(left=left, failure=failure)

        instances = max(1, len(actor.state.instances))
        deadline_ms = actor.state.assignment.deadline_ms if actor.state.assignment else 0
        patience_s = instances * (self._host.patience_s + deadline_ms / 1000)
        return await self._tell(request, look, _number(request, "timeout_ms", round(patience_s * 1000)) / 1000)

    async def _tell(self, request: web.Request, look: Callable[[], Progress], patience_s: float) -> web.StreamResponse:
        response = await _stream(request)
        async with aclosing(self._progress(look, patience_s)) as progress:
            async for one in progress:
                await response.write(msgspec.json.encode(one) + b"\n")
        await response.write_eof()
        return response

    async def _progress(self, look: Callable[[], Progress], patience_s: float) -> AsyncGenerator[Progress, None]:
        """What is left whenever that changes, and now and then; at last how it ended, or that it took too long."""
        deadline = anyio.current_time() + patience_s
        while (found := look()).left and not found.failure:
            if anyio.current_time() >= deadline:
                yield replace(found, failure=f"not done within {say_duration(round(patience_s * 1000))}")
                return
            yield found
            with anyio.move_on_after(min(BEAT_S, max(0.0, deadline - anyio.current_time()))):
                while look() == found:
                    await self._host.changed()
        yield replace(found, done=not found.failure)


def _only_for(group: int | None) -> Middleware:
    @web.middleware
    async def only_for(request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.transport.get_extra_info("socket") if request.transport else None
        if connection is None:
            raise ForbiddenError("cannot tell who asks: the connection is gone")
        peer = peer_of(connection.fileno())
        if not peer.may_enter(group):
            raise ForbiddenError(
                f"user {peer.uid} may not speak with this agent",
                f"Ask as root, or as a member of the group {GROUP} (a new member logs in again first).",
            )
        if request.method != "GET":
            log.info("asked on the host", verb=request.path, uid=peer.uid, pid=peer.pid, query=request.query_string)
        return await handler(request)

    return only_for


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
        raise UsageError(f"expected a whole number for {name}, found {text[:80]!r}")
    return int(text) if text else default


def _instances(request: web.Request) -> tuple[ProcessName | None, int | None]:
    """Which instances are meant: of a type, or one of it; none are named: all."""
    process = request.query.get("process")
    if process is not None and not is_name(process):
        raise UsageError(f"expected {NAME_EXPECTED}, found {process[:80]!r}")
    slot = _number(request, "slot", 0) if "slot" in request.query else None
    return None if process is None else ProcessName(process), slot


def _check(actor: Actor, process: ProcessName | None, slot: int | None) -> None:
    if missing := unknown(actor.state, process, slot):
        raise NotFoundError(f"{missing} of {actor.key.app} on this host", "See `rollway ps` on this host.")


def _answer(value: Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


async def _stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    return response
