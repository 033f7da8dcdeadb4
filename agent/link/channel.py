"""One open WebSocket, whichever end: text frames out within a bound of time, text frames in, and why it ended.

Rules: a frame that cannot be sent in time ends the connection, and nothing is sent on it again (a send that was
cancelled leaves aiohttp's writer unusable); the end cancels the scope that the channel's users run in. The first reason
given stands.
"""

from typing import Final

import aiohttp
import anyio
import anyio.lowlevel
from aiohttp import web

from agent.errors import VerificationError

SEND_S: Final = 5.0
HEARTBEAT_S: Final = 15.0
"""Both ends ping; a dead peer is found after one and a half of them."""


class Channel:
    """Frames of one connection; `scope` is cancelled when one of them could not be sent."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse | web.WebSocketResponse, scope: anyio.CancelScope
    ) -> None:
        self._socket, self._scope = socket, scope
        self.reason = ""

    def lost(self, reason: str) -> None:
        self.reason = self.reason or reason

    async def send(self, frame: bytes) -> None:
        try:
            with anyio.fail_after(SEND_S):
                await self._socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            self.lost(str(error) or f"the peer took nothing for {SEND_S:.0f} s")
            self._scope.cancel()
            await anyio.lowlevel.checkpoint()

    async def receive(self) -> str | None:
        """The next frame; None at the end of the connection. Raises VerificationError for what is no text."""
        frame = await self._socket.receive()
        match frame.type:
            case aiohttp.WSMsgType.TEXT:
                return str(frame.data)
            case aiohttp.WSMsgType.BINARY:
                raise VerificationError("a binary frame came; the link speaks text")
            case _:
                code = self._socket.close_code
                self.lost(str(self._socket.exception() or frame.extra or f"closed with code {code}"))
                return None
