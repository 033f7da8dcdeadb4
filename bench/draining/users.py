"""Clients of one server, of every kind that the table has, in a process of its own: what each kind asked and lost.

Words: address, port, the ports of a proxy in front (0: none), `websocket` or `-`. It says `asking` once every kind has
been served, and counts until its stdin ends; then it prints a line of JSON. Nothing is asked again behind the count. A
client replaces a kept connection that the other end has closed before it writes to it, as all clients do; those that
are far away look `ROUND_TRIP_S` before their words arrive, which is how a close and a request cross in a network.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
import uvloop

ROUND_TRIP_S: Final = 0.02
TIMEOUT_S: Final = 15.0
REASONS_MAX: Final = 3
Visit = tuple[Callable[[str, str, int], Awaitable[None]], str, int]
LOST: Final = (OSError, EOFError, TimeoutError, ValueError, KeyError, asyncio.LimitOverrunError, aiohttp.ClientError)
COMES_BACK: Final = (1001, 1012)
"""Close codes with which a server says that it goes: a client connects again, and has lost nothing."""
PAUSE_S: Final = {"far": (0.0, 0.0), "idle": (2.5, 5.0)}
BUSY_PAUSE_S: Final = (0.0, 0.01)
MESSAGE_PAUSE_S: Final = 0.05
HOW_MANY: Final = {"new": 6, "kept": 6, "far": 24, "idle": 64, "proxy": 6, "proxy, tries again": 6, "websocket": 8}


class Users:
    """Everybody, and what they have seen."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.reasons: dict[str, list[str]] = {}

    def lost(self, kind: str, error: Exception | str) -> None:
        self.failed[kind] += 1
        seen = self.reasons.setdefault(kind, [])
        if len(seen) < REASONS_MAX:
            seen.append(error if isinstance(error, str) else f"{type(error).__name__} {error}".strip())

    async def visit(self, kind: str, address: str, port: int) -> None:
        """Ask again and again; on one connection unless new ones are the point."""
        request = f"GET / HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
        pauses, is_far = PAUSE_S.get(kind, BUSY_PAUSE_S), kind in ("far", "idle")
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while True:
            try:
                if reader is None or writer is None or reader.at_eof():
                    if writer:
                        writer.close()
                    reader, writer = await asyncio.open_connection(address, port)
                if is_far:
                    await asyncio.sleep(ROUND_TRIP_S)
                async with asyncio.timeout(TIMEOUT_S):
                    stays = await _ask(reader, writer, request)
                self.asked[kind] += 1
            except LOST as error:
                self.asked[kind] += 1
                self.lost(kind, error)
                stays = False
                await asyncio.sleep(ROUND_TRIP_S)
            if writer and (kind == "new" or not stays):
                writer.close()
                reader = writer = None
            await asyncio.sleep(random.uniform(*pauses))  # noqa: S311 - a spread, not a secret

    async def speak(self, kind: str, address: str, port: int) -> None:
        """Send a message, wait for its echo; connect again when told that the server goes."""
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.ws_connect(f"http://{address}:{port}/ws") as socket:
                        await self._converse(kind, socket)
                except LOST as error:
                    self.lost(kind, error)
                await asyncio.sleep(MESSAGE_PAUSE_S)

    async def _converse(self, kind: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await socket.send_str("hello")
            self.asked[kind] += 1
            message = await socket.receive(TIMEOUT_S)
            if message.type is aiohttp.WSMsgType.TEXT:
                try:
                    message = await socket.receive(MESSAGE_PAUSE_S)
                except TimeoutError:
                    continue
            if socket.close_code not in COMES_BACK:
                self.lost(kind, f"{message.type.name}, code {socket.close_code}")
            return


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bool:
    """Whether the connection may be kept. Raises what LOST names for anything but a whole answer that is well."""
    writer.write(request)
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    await reader.readexactly(int(fields["content-length"]))
    if status.split()[1] != "200":
        raise ValueError(status)
    return fields.get("connection") != "close"


async def main(address: str, port: int, proxy: int, proxy_again: int, websocket: str) -> None:
    users = Users()
    visits: dict[str, Visit] = dict.fromkeys(("new", "kept", "far", "idle"), (users.visit, address, port))
    if proxy:
        visits["proxy"] = (users.visit, "127.0.0.1", proxy)
        visits["proxy, tries again"] = (users.visit, "127.0.0.1", proxy_again)
    if websocket == "websocket":
        visits["websocket"] = (users.speak, address, port)
    tasks = [
        asyncio.ensure_future(visit(kind, where, at))
        for kind, (visit, where, at) in visits.items()
        for _ in range(HOW_MANY[kind])
    ]
    while len(users.asked) < len(visits):  # noqa: ASYNC110 - once, before anything counts
        await asyncio.sleep(0.05)
    users.asked.clear()
    users.failed.clear()
    users.reasons.clear()
    print("asking", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    print(json.dumps({kind: [users.asked[kind], users.failed[kind], users.reasons.get(kind, [])] for kind in visits}))


if __name__ == "__main__":
    where, first, second, third, word = sys.argv[1:]
    uvloop.run(main(where, int(first), int(second), int(third), word))
