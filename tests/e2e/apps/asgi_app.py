"""An ASGI app as uvicorn's own tutorial has it, plus the drain notice in three lines."""

import os
import pathlib
from collections.abc import Awaitable, Callable

VERSION = pathlib.Path("VERSION").read_text().strip()


async def app(
    scope: dict[str, object],
    receive: Callable[[], Awaitable[object]],
    send: Callable[[dict[str, object]], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        return
    body = f'{{"version": "{VERSION}"}}'.encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if os.path.exists(os.environ["ROLLWAY_DRAIN_FILE"]):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
