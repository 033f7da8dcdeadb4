"""An ASGI app of a few lines, WebSocket too, as its author would wrap it; NOTICE=off leaves the middleware away."""

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import rollway_drain

Message = MutableMapping[str, Any]
BODY = json.dumps({"release": os.environ["ROLLWAY_RELEASE"]}).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})
    elif scope["type"] == "websocket":
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})
            else:
                await send({"type": "websocket.send", "text": message["text"]})
        print("disconnected", flush=True)


if os.environ.get("NOTICE") != "off":
    app = rollway_drain.ASGI(app)
