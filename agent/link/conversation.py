"""What is said about one command, whichever end: words as they come, and streams by their windows.

Rules: whoever sends more than was asked for is heard no more. One task listens; the rest may be used by many. Not
handled here: the connection (`link.runs`), for which an agent has a library that it loads after what it has to run.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

import anyio

from agent.errors import VerificationError
from agent.wire.runs import (
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

_STREAMS: Final[tuple[Stream, ...]] = (STDIN, STDOUT, STDERR)

Heard = TypeVar("Heard", FromCaller, FromHost)


class Carrier(Protocol):
    """A connection, as `link.runs.Line` is one."""

    async def send(self, frame: Frame) -> None: ...

    async def receive(self) -> Frame | None: ...


class Conversation(Generic[Heard]):
    """One end of what is said about a command: words as they come, streams by their windows.

    `listen` is somebody's task; while it runs, chunks wait here, bounded by the windows.
    """

    def __init__(self, line: Carrier, decode: Callable[[Frame], Heard | Chunk]) -> None:
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
