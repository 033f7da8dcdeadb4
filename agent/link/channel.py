"""One open WebSocket, whichever end: text frames out within a bound of time, text frames in, and why it ended.

Rules: a frame that cannot be sent in time ends the connection, and nothing is sent on it again (a send that was
cancelled leaves aiohttp's writer unusable). Whoever uses a channel runs in its `scope`, which its end cancels. The
first reason given stands.
"""

from typing import Final

import aiohttp
import anyio
import anyio.lowlevel
from aiohttp import web

from agent.errors import VerificationError

SEND_S: Final = 5.0
CLOSE_S: Final = 1.0
HEARTBEAT_S: Final = 15.0
"""Both ends ping; a dead peer is found after one and a half of them."""
_REASON_BYTES_MAX: Final = 120
"""What a close frame has room for."""


class Channel:
    """Frames of one connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse | web.WebSocketResponse) -> None:
        self._socket = socket
        self._broken = False
        self.scope = anyio.CancelScope()
        self.reason = ""

    def lost(self, reason: str) -> None:
        self.reason = self.reason or reason

    def end(self, reason: str) -> None:
        self.lost(reason)
        self.scope.cancel()

    async def send(self, frame: bytes) -> None:
        try:
            with anyio.fail_after(SEND_S):
                await self._socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            self._broken = True
            self.end(str(error) or f"the peer took nothing for {SEND_S:.0f} s")
            await anyio.lowlevel.checkpoint()

    async def close(self) -> None:
        """Tell the peer the reason, if it can be told within a moment."""
        if not self._broken and not self._socket.closed:
            reason = self.reason.encode()[:_REASON_BYTES_MAX]
            with anyio.move_on_after(CLOSE_S, shield=True):
                await self._socket.close(code=aiohttp.WSCloseCode.POLICY_VIOLATION, message=reason)

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
