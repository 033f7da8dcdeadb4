r"""What an instance writes, for a person: one stream's bytes in, the same lines out, each after a margin that names it.

Rules: split at newline only; a line keeps its bytes, whatever they are. Of a line beyond the bound each part is a line
of its own, the later ones after `+`; a last line without a newline gets one. On a terminal a line that sets colours
ends with their reset, so that they do not run into the next line. Not handled here: who writes, and to where.
"""

from typing import Final

from msgspec import Struct

from agent.wire.logline import Fed

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
    """Cuts one stream into lines; what is behind the last newline stays with the caller, as with `LogLines`."""

    def __init__(self, margin: Margin, stream: str, *, inside: bool = False, bound_bytes: int = LINE_BYTES_MAX) -> None:
        self._margin = margin
        self._sign = SIGNS.get(stream, SIGNS["stdout"])
        self._bound_bytes = bound_bytes
        self.inside = inside
        """Whether the next byte continues a line whose first parts are out already."""

    def feed(self, data: memoryview, ts: str, out: memoryview) -> Fed:  # noqa: ARG002 - other records have their time
        """Write all lines that end in `data` to `out`, or as many as find room."""
        text = bytes(data)
        used = made = 0
        while True:
            end = text.find(b"\n", used, used + self._bound_bytes + 1) + 1
            is_whole = end > 0
            if not is_whole:
                end = used + self._bound_bytes
                if len(text) <= end:
                    return Fed(used, made)
            line = self._put(text[used : end - is_whole])
            if len(line) > len(out) - made:
                return Fed(used, made, is_full=True)
            out[made : made + len(line)] = line
            used, made, self.inside = end, made + len(line), not is_whole

    def end(self, rest: bytes, ts: str) -> bytes:  # noqa: ARG002 - as above
        """Give what was left without a newline when the stream is over."""
        line = self._put(rest) if rest else b""
        self.inside = False
        return line

    def gap(self, dropped: int, ts: str) -> bytes:  # noqa: ARG002 - as above
        """Give the line that stands for so many that found no room."""
        return self._margin.line(self._sign, b"(%d lines found no room)" % dropped)

    def _put(self, line: bytes) -> bytes:
        return self._margin.line(_CONTINUED if self.inside else self._sign, line)
