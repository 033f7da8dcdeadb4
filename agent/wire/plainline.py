r"""What an instance writes, for a person: one stream's bytes in, the same lines out, each after a margin that names it.

Rules: split at newline only; a line keeps its bytes, whatever they are. Of a line beyond the bound each part is a line
of its own, the later ones after `+`; a last line without a newline gets one. On a terminal a line that sets colours
ends with their reset, so that they do not run into the next line. Not handled here: who writes, and to where.
"""

from typing import Final

from msgspec import Struct

LINE_BYTES_MAX: Final = 64 * 1024
SIGNS: Final = {"stdout": b"|", "stderr": b":"}
_CONTINUED: Final = b"+"
_ESCAPE: Final = b"\x1b"
_PLAIN: Final = b"\x1b[0m"


class Margin(Struct, frozen=True, kw_only=True):
    """What stands before each line of one writer."""

    name: str
    width: int
    """The name is filled up to that, so that all margins are aligned."""
    colour: int | None = None
    """Of the name and its sign, as SGR counts them; None: no escape sequence is written."""

    def before(self, sign: bytes) -> bytes:
        text = self.name.ljust(self.width).encode() + b" " + sign
        return text + b" " if self.colour is None else b"\x1b[%dm%s%s " % (self.colour, text, _PLAIN)

    def line(self, sign: bytes, line: bytes) -> bytes:
        """One whole line of the output."""
        reset = _PLAIN if self.colour is not None and _ESCAPE in line else b""
        return self.before(sign) + line + reset + b"\n"


class PlainLines:
    """Cuts one stream into lines; keeps what stands after the last newline, at most `bound_bytes` of it."""

    def __init__(self, margin: Margin, stream: str, *, inside: bool = False, bound_bytes: int = LINE_BYTES_MAX) -> None:
        self._margin = margin
        self._sign = SIGNS.get(stream, SIGNS["stdout"])
        self._bound_bytes = bound_bytes
        self._rest = b""
        self.inside = inside
        """Whether the rest continues a line whose first parts are out already."""

    @property
    def rest_bytes(self) -> int:
        """How much of what was fed is in no line yet."""
        return len(self._rest)

    def feed(self, chunk: bytes, ts: str) -> list[bytes]:  # noqa: ARG002 - records of the other form have their time
        """Give all lines that end in `chunk`."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        lines = []
        for line in whole:
            lines.append(self._put(line))
            self.inside = False
        while len(self._rest) > self._bound_bytes:
            lines.append(self._put(self._rest[: self._bound_bytes]))
            self._rest, self.inside = self._rest[self._bound_bytes :], True
        return lines

    def end(self, ts: str) -> list[bytes]:  # noqa: ARG002 - as above
        """Give what was left without a newline when the stream is over."""
        rest, self._rest = self._rest, b""
        lines = [self._put(rest)] if rest else []
        self.inside = False
        return lines

    def gap(self, dropped: int, ts: str) -> bytes:  # noqa: ARG002 - as above
        """Give the line that stands for so many that found no room."""
        return self._margin.line(self._sign, b"(%d lines found no room)" % dropped)

    def _put(self, line: bytes) -> bytes:
        return self._margin.line(_CONTINUED if self.inside else self._sign, line)
