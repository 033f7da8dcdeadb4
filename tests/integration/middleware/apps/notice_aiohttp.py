"""An aiohttp server on the inherited socket, WebSocket too; NOTICE=off leaves the hooks away."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, MutableSet
from weakref import WeakSet

import rollway_drain
from aiohttp import WSCloseCode, web

SOCKETS: web.AppKey[MutableSet[web.WebSocketResponse]] = web.AppKey("sockets", MutableSet)


async def answer(_request: web.Request) -> web.Response:
    return web.json_response({"release": os.environ["ROLLWAY_RELEASE"]})


async def echo(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    request.app[SOCKETS].add(response)
    async for message in response:
        await response.send_str(message.data)
    print("disconnected", flush=True)
    return response


async def close_websockets(app: web.Application) -> AsyncIterator[None]:
    async def close() -> None:
        await rollway_drain.noticed()
        sockets = app[SOCKETS]
        for response in list(sockets):
            await response.close(code=WSCloseCode.SERVICE_RESTART, message=b"service restart")

    task = asyncio.create_task(close())
    yield
    task.cancel()


app = web.Application()
app[SOCKETS] = WeakSet()
app.add_routes([web.get("/ws", echo), web.get("/{path:.*}", answer)])
if os.environ.get("NOTICE") != "off":
    app.on_response_prepare.append(rollway_drain.aiohttp_response_prepare)
    app.cleanup_ctx.append(close_websockets)

if __name__ == "__main__":
    web.run_app(app, sock=socket.socket(fileno=3), keepalive_timeout=75, access_log=None, print=None)
