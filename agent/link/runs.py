"""The connection of one command, whichever end: frames of a WebSocket of its own, and a conversation over it.

The agent dials it (`dialled`) when the link calls it to (`wire.messages.CallRun`), so that no command's bytes are in
the way of the link's, and each command ends with its own connection. Rules: a connection that is gone is no error: what
is sent to it is lost, what is received is None; whoever sends more than was asked for is heard no more. One task
listens; the rest may be used by many.
"""

import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

import aiohttp
import anyio
from aiohttp import web

from agent.errors import UnreachableError, VerificationError
from agent.link.channel import CLOSE_S, HEARTBEAT_S
from agent.wire.runs import (
    FRAME_BYTES_MAX,
    STDERR,
    STDIN,
    STDOUT,
    WINDOW,
    Chunk,
    Frame,
    FromCaller,
    FromHost,
    Stream,
    Took,
    encode,
)

DIAL_S: Final = 10.0
HEARD_WITHIN_S: Final = 30.0
"""So long the last of a command's output may be on its way to the coordinator."""
_STREAMS: Final[tuple[Stream, ...]] = (STDIN, STDOUT, STDERR)

Heard = TypeVar("Heard", FromCaller, FromHost)
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


class Conversation(Generic[Heard]):
    """One end of what is said about a command: words as they come, streams by their windows.

    `listen` is somebody's task; while it runs, chunks wait here, bounded by the windows.
    """

    def __init__(self, line: Line, decode: Callable[[Frame], Heard | Chunk]) -> None:
        self._line = line
        self._decode: Callable[[Frame], Heard | Chunk] = decode
        self._room: dict[Stream, int] = dict.fromkeys(_STREAMS, WINDOW)
        self._owed: dict[Stream, int] = dict.fromkeys(_STREAMS, 0)
        self._waiting: dict[Stream, deque[bytes]] = {stream: deque() for stream in _STREAMS}
        self._changed = anyio.Event()
        self.over = False
        """Whether the other end is gone."""

    async def listen(self, hear: Callable[[Heard], None]) -> None:
        """Give each word to `hear`, until the other end is gone. Raises VerificationError for other things."""
        try:
            while (frame := await self._line.receive()) is not None:
                match self._decode(frame):
                    case Chunk(stream=stream, data=data):
                        self._owed[stream] += 1
                        if self._owed[stream] > WINDOW:
                            raise VerificationError("more was sent to a command, or by one, than was asked for")
                        self._waiting[stream].append(data)
                    case Took(stream=stream):
                        self._room[stream] = min(WINDOW, self._room[stream] + 1)
                    case word:
                        hear(word)
                self._tell()
        finally:
            self.over = True
            self._tell()

    async def read(self, stream: Stream) -> bytes | None:
        """The next chunk, empty at the stream's end; None when all was read and the other end is gone."""
        while not self._waiting[stream]:
            if self.over:
                return None
            await self._changed.wait()
        return self._waiting[stream].popleft()

    async def took(self, stream: Stream) -> None:
        """Say that what `read` gave last has gone where it belongs."""
        self._owed[stream] -= 1
        await self.say(Took(stream=stream))

    async def write(self, stream: Stream, data: bytes) -> bool:
        """Send a chunk once there is room for it; whether the other end is there."""
        while not self._room[stream] and not self.over:
            await self._changed.wait()
        if self.over:
            return False
        self._room[stream] -= 1
        await self._line.send(encode(Chunk(stream, data)))
        return not self.over

    async def gone(self) -> None:
        """Wait until the other end is gone."""
        while not self.over:
            await self._changed.wait()

    async def say(self, word: FromCaller | FromHost) -> None:
        await self._line.send(encode(word))

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
