"""The agent's own socket: what a person on the host may ask and order while no coordinator answers.

Rules: a connection is answered for root, the agent's own user, and members of the group `rollway`, by the kernel's word
alone; bodies are bounded; what takes its time answers line by line and goes on when nobody listens any more. Not
handled here: what is decided of it (`decisions.swap`).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from socket import socket
from typing import Final

import anyio
import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from agent.errors import FailedError, ForbiddenError, RefusedError, UsageError
from agent.host.host import Host
from agent.linux import unixsocket
from agent.linux.peercred import peer_of
from agent.web.bounds import RUNNER_LIMITS
from agent.web.errors import errors_as_json
from agent.wire.control import BEAT_S, GROUP, SOCKET, Progress

ANSWERS_WITHIN_S: Final = 2.0
SHUTDOWN_S: Final = 0.5
BODY_BYTES_MAX: Final = 16 * 1024
DIGITS_MAX: Final = 12


class Control:
    """The socket, bound when this is made (raises RollwayError), served while `serving` lasts."""

    def __init__(self, run_dir: Path, group: int | None) -> None:
        self._path, self._group = run_dir / SOCKET, group
        if _answers(self._path):
            raise RefusedError(
                f"cannot listen on {self._path}: another agent answers there", "Give each agent a run_dir of its own."
            )
        try:
            self._socket: socket = unixsocket.listen(self._path, self._group)
        except OSError as error:
            raise FailedError(
                f"cannot listen on {self._path}: {error.strerror}", "Give the agent a run_dir that it may write to."
            ) from error

    @asynccontextmanager
    async def serving(self, host: Host) -> AsyncIterator[None]:
        runner = web.AppRunner(
            application(host, self._group), shutdown_timeout=SHUTDOWN_S, handler_cancellation=True, **RUNNER_LIMITS
        )
        await runner.setup()
        try:
            await web.SockSite(runner, self._socket).start()
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await runner.cleanup()

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._socket.close()


def application(host: Host, group: int | None) -> web.Application:
    routes = Routes(host)
    made = web.Application(middlewares=[errors_as_json, _only_for(group)], client_max_size=BODY_BYTES_MAX)
    made.router.add_post("/v1/drain", routes.drain)
    made.router.add_post("/v1/undrain", routes.undrain)
    return made


class Routes:
    """What may be asked."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def drain(self, request: web.Request) -> web.StreamResponse:
        """Stop everything; tell what is left until nothing is, or it takes longer than the stop policies allow."""
        patience_s = _number(request, "timeout_ms", round(self._host.patience_s * 1000)) / 1000
        await self._host.stay_drained()
        return await self._tell(request, self._host.undrained, patience_s)

    async def undrain(self, _request: web.Request) -> web.StreamResponse:
        try:
            await self._host.undrain()
        except OSError as error:
            raise FailedError(
                f"cannot undrain: {error.strerror}: {error.filename}", "Correct it, and try again."
            ) from error
        return web.json_response({})

    async def _tell(
        self, request: web.Request, left: Callable[[], tuple[str, ...]], patience_s: float
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        async with aclosing(self._progress(left, patience_s)) as progress:
            async for one in progress:
                await response.write(msgspec.json.encode(one) + b"\n")
        await response.write_eof()
        return response

    async def _progress(self, left: Callable[[], tuple[str, ...]], patience_s: float) -> AsyncGenerator[Progress, None]:
        """What is left whenever that changes, and now and then; at last that nothing is, or that it took too long."""
        deadline = anyio.current_time() + patience_s
        while names := left():
            if anyio.current_time() >= deadline:
                yield Progress(left=names, failure=f"not done within {patience_s:.0f} s")
                return
            yield Progress(left=names)
            with anyio.move_on_after(min(BEAT_S, max(0.0, deadline - anyio.current_time()))):
                while left() == names:
                    await self._host.changed()
        yield Progress(done=True)


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
        return await handler(request)

    return only_for


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
        raise UsageError(f"expected a whole number for {name}, found {text[:80]!r}")
    return int(text) if text else default


def _answers(path: Path) -> bool:
    try:
        unixsocket.connect(path, ANSWERS_WITHIN_S).close()
    except OSError:
        return False
    return True
