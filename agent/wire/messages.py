"""The words of the link between agent and coordinator: JSON objects tagged by `type`, one per WebSocket text frame.

Protocol version 1; a peer speaks N and N-1. Frames are at most `FRAME_BYTES_MAX`; larger things are fetched by HTTP.
Not handled here: the transport (`link`), what is outstanding (`wire.session`).
"""

from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from agent.errors import VerificationError
from agent.model.assignment import Assignment, HostReport
from agent.model.figures import InstanceFigures
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName
from agent.model.lease import LeaseAnswer, LeaseAsk
from agent.model.units import Milliseconds

PROTOCOL: Final = 1
FRAME_BYTES_MAX: Final = 256 * 1024


class Hello(Struct, frozen=True, kw_only=True, tag="hello"):
    """Agent's first frame: who it is and what it holds."""

    protocol: int
    host: HostName
    boot_id: str
    version: str
    age_recipient: str
    """To which the coordinator wraps environment keys for this host."""
    labels: dict[str, str] = {}
    environments: tuple[EnvironmentName, ...] = ()
    address: str = ""
    """By its settings; where they name none, a coordinator notes the one that the link comes from."""
    tells_figures: bool = False
    """Whether it knows `AskFigures`: an older agent would take it for the word of a stranger."""
    leases: bool = False
    """Whether it asks for leases; one that does not would start a singleton like any other type."""


class Report(Struct, frozen=True, kw_only=True, tag="report"):
    report: HostReport


class TailLines(Struct, frozen=True, kw_only=True, tag="tail_lines"):
    """Log records asked for by `TailLogs`, each a JSON object as on the agent's stdout."""

    tail: int
    lines: tuple[str, ...]
    dropped: int = 0
    """Records left out because the reader was too slow."""


class TailEnd(Struct, frozen=True, kw_only=True, tag="tail_end"):
    tail: int


class AskLeases(Struct, frozen=True, kw_only=True, tag="ask_leases"):
    """All leases that the host has or wants; of what it leaves out nothing lives there. Again and again."""

    number: int
    asks: tuple[LeaseAsk, ...] = ()


class FiguresTold(Struct, frozen=True, kw_only=True, tag="figures"):
    """A part of what was asked for by `AskFigures`."""

    ask: int
    instances: tuple[InstanceFigures, ...] = ()
    more: bool = False
    """Whether another part follows."""


class Welcome(Struct, frozen=True, kw_only=True, tag="welcome"):
    """Coordinator's first frame. `epoch` fences: whoever has seen a higher one refuses this coordinator."""

    protocol: int
    epoch: int
    spread_ms: Milliseconds = 1_000
    """Over how long to spread the first try to connect again: it grows with the fleet, so that none comes at once."""
    lease_ms: Milliseconds = 0
    """How long a singleton may go on without an answer to `AskLeases`; 0: this coordinator answers none."""


class Assign(Struct, frozen=True, kw_only=True, tag="assign"):
    assignment: Assignment


class TailLogs(Struct, frozen=True, kw_only=True, tag="tail_logs"):
    """Send the newest `lines` records of the matching instances, then, with `follow`, each new one until `StopTail`."""

    tail: int
    app: AppName
    environment: EnvironmentName
    process: ProcessName | None = None
    slot: int | None = None
    lines: int = 100
    follow: bool = False


class StopTail(Struct, frozen=True, kw_only=True, tag="stop_tail"):
    tail: int


class AnswerLeases(Struct, frozen=True, kw_only=True, tag="answer_leases"):
    number: int
    """Of the `AskLeases` that is answered: what is granted counts from when that was made."""
    answers: tuple[LeaseAnswer, ...] = ()


class AskFigures(Struct, frozen=True, kw_only=True, tag="ask_figures"):
    """Tell once what the instances that run use of the host, of one app or environment or of all."""

    ask: int
    app: AppName | None = None
    environment: EnvironmentName | None = None


FromAgent = Hello | Report | TailLines | TailEnd | FiguresTold | AskLeases
FromCoordinator = Welcome | Assign | TailLogs | StopTail | AskFigures | AnswerLeases

Message = TypeVar("Message")

_from_agent: Final[msgspec.json.Decoder[FromAgent]] = msgspec.json.Decoder(FromAgent)
_from_coordinator: Final[msgspec.json.Decoder[FromCoordinator]] = msgspec.json.Decoder(FromCoordinator)
_encoder: Final = msgspec.json.Encoder()


def encode(message: FromAgent | FromCoordinator) -> bytes:
    return _encoder.encode(message)


def decode_from_agent(frame: bytes | str) -> FromAgent:
    """Raises `VerificationError` for anything but one message of an agent."""
    return _decode(_from_agent, frame)


def decode_from_coordinator(frame: bytes | str) -> FromCoordinator:
    """Raises `VerificationError` for anything but one message of a coordinator."""
    return _decode(_from_coordinator, frame)


def _decode(decoder: "msgspec.json.Decoder[Message]", frame: bytes | str) -> Message:
    if len(frame) > FRAME_BYTES_MAX:
        raise VerificationError(f"a frame of {len(frame)} bytes is over the bound of {FRAME_BYTES_MAX}")
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise VerificationError(f"cannot read a frame of the link: {error}") from error
