"""Tells the clients of an app to leave before Rollway stops the instance: middleware for ASGI and WSGI, and hooks.

Rollway makes the file named by ROLLWAY_DRAIN_FILE appear once no new connection comes to an instance any more. From
then on answers carry `Connection: close`, so that a client opens its next connection to the next instance instead of
writing to one that is about to be closed; WebSockets are closed with 1012, "service restart".

    app = rollway_drain.ASGI(app)                     # uvicorn, hypercorn, granian, gunicorn's asgi worker
    application = rollway_drain.WSGI(application)     # granian
    pre_request = rollway_drain.gunicorn_pre_request  # gunicorn.conf.py: its WSGI workers
    app.on_response_prepare.append(rollway_drain.aiohttp_response_prepare)  # aiohttp

Rules: one file without dependencies, for Python 3.8 and newer, to be installed or copied. Without ROLLWAY_DRAIN_FILE it
does nothing. The file is looked for at most ten times a second, whatever the load. It may go again: so does the effect.
HTTP/2 and HTTP/3 have no such header; how the server says GOAWAY is its own affair.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
    WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

__all__ = ["ASGI", "WSGI", "Notice", "aiohttp_response_prepare", "draining", "gunicorn_pre_request", "noticed"]

LOOK_S: Final = 0.1
SWITCHING_PROTOCOLS: Final = 101
SERVICE_RESTART: Final = 1012
_ENDS_A_WEBSOCKET: Final = frozenset({"websocket.close", "websocket.http.response.start"})
_WSGI_SERVERS: Final = frozenset({"Granian"})
"""By SERVER_SOFTWARE: those that take `Connection` from an app. PEP 3333 keeps it from apps: gunicorn drops it, wsgiref
and waitress fail the request."""


class Notice:
    """Whether the instance drains, looked up at most every `look_s`: calling it costs a fraction of a microsecond."""

    def __init__(self, path: str | None = None, look_s: float = LOOK_S) -> None:
        self.path = os.environ.get("ROLLWAY_DRAIN_FILE", "") if path is None else path
        self.look_s = look_s
        self._is_there = False
        self._next_look_s = float("-inf")

    def __call__(self) -> bool:
        if not self.path:
            return False
        now_s = time.monotonic()
        if now_s >= self._next_look_s:
            self._is_there = os.path.exists(self.path)  # noqa: PTH110 - False, too, where it may not look
            self._next_look_s = now_s + self.look_s
        return self._is_there


draining: Final = Notice()
"""Call it in loops that send without end (server-sent events, long polls): end the answer once it is true."""


async def noticed(notice: Notice = draining) -> None:
    """Return once the instance drains; without the variable never. For a task that then does what only its app can."""
    while not notice():  # noqa: ASYNC110 - a file appears: nothing in this process could set an event
        await asyncio.sleep(notice.look_s)


class ASGI:
    """`app` with the notice: over HTTP/1 answers say `Connection: close`, WebSockets are closed with 1012.

    WebSockets are closed over `spread_s`, so that not all clients come back in one moment; give 0 for at once, None to
    leave them alone. The app sees the end as any other: `websocket.disconnect`, and OSError where it sends on.
    """

    def __init__(self, app: AsgiApp, notice: Notice = draining, spread_s: float | None = 0.5) -> None:
        self._app = app
        self._notice = notice
        self._spread_s = spread_s
        self._rooms: dict[asyncio.AbstractEventLoop, _Room] = {}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if self._notice.path and scope["type"] == "http" and scope.get("http_version", "1.1")[0] == "1":
            await self._app(scope, receive, self._closing(send))
        elif self._notice.path and scope["type"] == "websocket" and self._spread_s is not None:
            await self._websocket(scope, receive, send, self._spread_s)
        else:
            await self._app(scope, receive, send)

    def _closing(self, send: Send) -> Send:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._notice():
                kept = [pair for pair in message.get("headers", ()) if bytes(pair[0]).lower() != b"connection"]
                message = {**message, "headers": [*kept, (b"connection", b"close")]}
            await send(message)

        return send_closing

    async def _websocket(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, spread_s: float) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # trio
            await self._app(scope, receive, send)
            return
        room = self._rooms.get(loop)
        if room is None:
            room = self._rooms[loop] = _Room(self._notice)
        socket = _WebSocket(send)
        closer = room.enter(socket, random.uniform(0, spread_s))  # noqa: S311 - a spread, not a secret
        try:
            await self._app(scope, receive, socket.send)
        finally:
            if room.leave(closer):
                del self._rooms[loop]


class _Room:
    """The open WebSockets of one event loop: one task looks for the notice, for all of them."""

    def __init__(self, notice: Notice) -> None:
        self._notice = notice
        self._noticed = asyncio.Event()
        self._closers: set[asyncio.Task[None]] = set()
        self._watch = asyncio.ensure_future(self._look())

    def enter(self, socket: _WebSocket, delay_s: float) -> asyncio.Task[None]:
        closer = asyncio.ensure_future(self._close(socket, delay_s))
        self._closers.add(closer)
        return closer

    def leave(self, closer: asyncio.Task[None]) -> bool:
        """Whether nobody is left, and nobody looks any more."""
        closer.cancel()  # an error of its close, of which there may be one when the client has left, goes with it
        self._closers.discard(closer)
        if not self._closers:
            self._watch.cancel()
        return not self._closers

    async def _look(self) -> None:
        while True:
            if self._notice():
                self._noticed.set()
            else:
                self._noticed.clear()
            await asyncio.sleep(self._notice.look_s)

    async def _close(self, socket: _WebSocket, delay_s: float) -> None:
        await socket.accepted.wait()
        await self._noticed.wait()
        await asyncio.sleep(delay_s)
        await socket.close()


class _WebSocket:
    """What an app sends on one WebSocket, and the one message that is not the app's: never two at a time."""

    def __init__(self, send: Send) -> None:
        self.accepted = asyncio.Event()
        self._send = send
        self._turn = asyncio.Lock()
        self._has_ended = False
        self._is_ours = False

    async def send(self, message: Message) -> None:
        async with self._turn:
            if self._is_ours:
                raise ConnectionResetError("the WebSocket is closed: the instance is about to be stopped")
            self._has_ended = self._has_ended or message["type"] in _ENDS_A_WEBSOCKET
            await self._send(message)
        if message["type"] == "websocket.accept":
            self.accepted.set()

    async def close(self) -> None:
        async with self._turn:
            if self._has_ended:
                return
            self._has_ended = self._is_ours = True
            await self._send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "service restart"})


class WSGI:
    """`app` with the notice, where the server lets an app say `Connection: close`; elsewhere nothing changes.

    `always` is for a server that is known to take the header and is not known here.
    """

    def __init__(self, app: WsgiApp, notice: Notice = draining, *, always: bool = False) -> None:
        self._app = app
        self._notice = notice
        self._always = always

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not self._notice.path or not (self._always or environ.get("SERVER_SOFTWARE") in _WSGI_SERVERS):
            return self._app(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            if self._notice():
                headers = [pair for pair in headers if pair[0].lower() != "connection"] + [("Connection", "close")]
            return start_response(status, headers, *error)

        return self._app(environ, start)


def gunicorn_pre_request(_worker: Any, request: Any) -> None:
    """For `pre_request` in gunicorn's settings, with its WSGI workers; the asgi worker takes `ASGI`."""
    if draining():
        request.force_close()


async def aiohttp_response_prepare(_request: Any, response: Any) -> None:
    """For `app.on_response_prepare` of aiohttp's server."""
    if draining() and response.status != SWITCHING_PROTOCOLS:
        response.force_close()
        response.headers["Connection"] = "close"  # it has looked already whether it should say so itself
