"""The words about one command that somebody runs on a host and watches: the same from end to end.

Text frames are words, JSON objects tagged by `type`; binary frames are chunks of a stream: its number, then the bytes,
none at its end. Rules: of each stream at most `WINDOW` chunks are under way that the other end has not said to have
taken (`Took`); so a slow reader slows the writer, nobody between keeps more, and words overtake what waits.
Not handled here: the transport (`link.runs`).
"""

from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from agent.errors import RollwayError, VerificationError
from agent.model.ids import ReleaseName

CHUNK_BYTES: Final = 64 * 1024
WINDOW: Final = 16
FRAME_BYTES_MAX: Final = 256 * 1024
"""A command's order is the largest."""
STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
NOT_FOUND: Final = 127
NOT_RUN: Final = 126
"""The exit codes by which a shell says that it has not found, or could not run, a command."""

Stream = Literal[0, 1, 2]
SignalName = Literal["SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"]
SIDE_MAX: Final = 10_000
Side = Annotated[int, Meta(ge=1, le=SIDE_MAX)]


class Size(Struct, frozen=True):
    """Of a terminal's window."""

    rows: Side
    columns: Side


class Ask(Struct, frozen=True, kw_only=True, tag="ask"):
    """The caller's first word."""

    order: str
    """The envelope of a `RunOrder`: the host verifies it by itself."""
    size: Size | None = None
    """It is to have a terminal of this size; None: pipes, and nothing but what is sent in `Chunk`s."""
    term: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}$")] = "dumb"
    """What the caller's terminal is, where it is to have one."""
    stdin: bool = False
    """Whether there will be input; without, it reads the end at once."""


class Resized(Struct, frozen=True, kw_only=True, tag="resized"):
    size: Size


class Signalled(Struct, frozen=True, kw_only=True, tag="signalled"):
    """The caller got this signal, and it is meant for the command."""

    signal: SignalName


class Took(Struct, frozen=True, kw_only=True, tag="took"):
    """A chunk of this stream has gone where it belongs: another may come."""

    stream: Stream


class Started(Struct, frozen=True, kw_only=True, tag="started"):
    instance: str
    pid: int
    release: ReleaseName


class Ended(Struct, frozen=True, kw_only=True, tag="ended"):
    """The last word: how it ended; neither code nor signal where nobody can tell."""

    code: int | None = None
    signal: int | None = None
    reason: str = ""
    """Why we have ended it, where it is not by itself that it did."""


class Refused(Struct, frozen=True, kw_only=True, tag="refused"):
    """The last word: it was not begun, or nobody knows how it ended. `code` is the exit code that this stands for."""

    error: str
    what_to_do: str = ""
    code: int = 1

    @classmethod
    def of(cls, error: RollwayError) -> "Refused":
        return cls(error=error.error, what_to_do=error.what_to_do, code=error.exit_code)


class Chunk(Struct, frozen=True):
    stream: Stream
    data: bytes
    """Empty at the stream's end."""


FromCaller = Ask | Resized | Signalled | Took
FromHost = Started | Ended | Refused | Took
Frame = str | bytes

Word = TypeVar("Word")
_from_caller: Final[msgspec.json.Decoder[FromCaller]] = msgspec.json.Decoder(FromCaller)
_from_host: Final[msgspec.json.Decoder[FromHost]] = msgspec.json.Decoder(FromHost)
_encoder: Final = msgspec.json.Encoder()


def encode(word: FromCaller | FromHost | Chunk) -> Frame:
    if isinstance(word, Chunk):
        return bytes((word.stream,)) + word.data
    return _encoder.encode(word).decode()


def from_caller(frame: Frame) -> FromCaller | Chunk:
    """Raises VerificationError for anything else."""
    return _decode(_from_caller, frame) if isinstance(frame, str) else _chunk(frame, (STDIN,))


def from_host(frame: Frame) -> FromHost | Chunk:
    """Raises VerificationError for anything else."""
    return _decode(_from_host, frame) if isinstance(frame, str) else _chunk(frame, (STDOUT, STDERR))


def _decode(decoder: "msgspec.json.Decoder[Word]", frame: str) -> Word:
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise VerificationError(f"cannot read a word about a command: {error}") from error


def _chunk(frame: bytes, streams: tuple[Stream, ...]) -> Chunk:
    stream = next((stream for stream in streams if frame[:1] == bytes((stream,))), None)
    if stream is None or len(frame) > CHUNK_BYTES + 1:
        raise VerificationError(f"cannot read a chunk of a command: stream {frame[:1]!r}, {len(frame)} bytes")
    return Chunk(stream, frame[1:])
