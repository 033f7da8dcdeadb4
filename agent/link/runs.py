"""The connection of one command, whichever end: frames of a WebSocket of its own.

The agent dials it (`dialled`) when the link calls it to (`wire.messages.CallRun`), so that no command's bytes are in
the way of the link's, and each command ends with its own connection. Rules: a connection that is gone is no error: what
is sent to it is lost, what is received is None. Not handled here: what is said (`link.conversation`).
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import anyio
from aiohttp import web

from agent.errors import UnreachableError
from agent.link.channel import CLOSE_S, HEARTBEAT_S
from agent.wire.runs import FRAME_BYTES_MAX, Frame

DIAL_S: Final = 10.0
HEARD_WITHIN_S: Final = 30.0
"""So long the last of a command's output may be on its way to the coordinator."""

Socket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


class Line:
    """Frames of one open WebSocket."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._turn = anyio.Lock()

    async def send(self, frame: Frame) -> None:
        """Send it, after those before it; waits while the other end's network takes nothing."""
        async with self._turn:
            if self._socket.closed:
                return
            try:
                if isinstance(frame, str):
                    await self._socket.send_str(frame)
                else:
                    await self._socket.send_bytes(frame)
            except (aiohttp.ClientError, ConnectionError):
                return

    async def receive(self) -> Frame | None:
        """The next frame; None at the end of the connection, however it came."""
        frame = await self._socket.receive()
        match frame.type:
            case aiohttp.WSMsgType.TEXT:
                return str(frame.data)
            case aiohttp.WSMsgType.BINARY:
                return bytes(frame.data)
            case _:
                return None

    async def close(self, patience_s: float = CLOSE_S) -> None:
        """Say goodbye, and wait so long for the other end, which answers when it has heard all that came before."""
        with anyio.move_on_after(patience_s):
            await self._socket.close()


@asynccontextmanager
async def dialled(url: str, run: str, tls: ssl.SSLContext) -> AsyncIterator[Line]:
    """The agent's end, for the command that it was called for. Raises UnreachableError."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
        try:
            with anyio.fail_after(DIAL_S):
                socket = await http.ws_connect(
                    f"{url}/agent/v1/runs/{run}",
                    ssl=tls,
                    heartbeat=HEARTBEAT_S,
                    compress=0,
                    max_msg_size=FRAME_BYTES_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=HEARD_WITHIN_S),
                )
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one of these
            raise UnreachableError(f"cannot reach {url} for a command: {str(error) or type(error).__name__}") from error
        line = Line(socket)
        try:
            yield line
        finally:
            await line.close(HEARD_WITHIN_S)
