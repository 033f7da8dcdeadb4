r"""What an instance writes, as JSON lines: one stream's bytes in, records out, each ending in a newline.

Rules: split at newline only; no byte is lost and none changes unmarked. A line that already is a JSON object keeps its
bytes with our fields before them; where it has a field of our name, ours stays and theirs is kept as `app_<name>`.
Marks: `"partial":true`, the newline did not come with this record (a line beyond the bound, or the end of the stream);
`"invalid_utf8":true`, bytes that are no UTF-8 stand in the message as `\xff`. Not handled here: time (an argument),
reading, writing, and what to do when the reader of the records is slow.
"""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from agent.errors import invariant

LINE_BYTES_MAX: Final = 64 * 1024
CHARACTER_BYTES_MAX: Final = 4
_OURS: Final = frozenset({"ts", "app", "env", "release", "process", "instance", "pid", "stream"})
_PLAIN: Final = bytes(set(range(0x20, 0x7F)) - set(b'"\\{')) + b"\n"
_encode: Final = msgspec.json.Encoder().encode
_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode


class Source(Struct, frozen=True, kw_only=True):
    """Who wrote: the fields of a record that are the same for a whole stream, in their order."""

    app: str
    env: str
    release: str
    process: str
    instance: str
    pid: int
    stream: str


class LogLines:
    """Cuts one stream into records; keeps what stands after the last newline, at most `bound_bytes` of it."""

    def __init__(self, source: Source, bound_bytes: int = LINE_BYTES_MAX, *, inside: bool = False) -> None:
        self._who = b'","' + _encode(source)[2:-1]
        invariant(bound_bytes > CHARACTER_BYTES_MAX, "a part of a line has room for a character")
        self._bound_bytes = bound_bytes
        self._rest = b""
        self.inside = inside
        """Whether the rest continues a line whose first parts are out already."""

    @property
    def rest_bytes(self) -> int:
        """How much of what was fed is in no record yet."""
        return len(self._rest)

    def feed(self, chunk: bytes, ts: str) -> bytes:
        """Give the records of all lines that end in `chunk`; `ts` is when it was read."""
        head = b'{"ts":"' + ts.encode() + self._who
        if not self._rest and self._is_plain(chunk):
            start = head + b',"message":"'
            return start + chunk[:-1].replace(b"\n", b'"}\n' + start) + b'"}\n'
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        records: list[bytes] = []
        for line in lines:
            self._line(head, line, records)
        self._rest = self._cut(head, self._rest, records)
        return b"".join(records)

    def end(self, ts: str) -> bytes:
        """Give what was left without a newline, marked, when the stream is over."""
        head, rest = b'{"ts":"' + ts.encode() + self._who, self._rest
        self._rest, self.inside = b"", False
        return _text(head, rest, partial=True) if rest else b""

    def gap(self, dropped: int, ts: str) -> bytes:
        """Give the record that stands for so many that found no room."""
        return b'{"ts":"' + ts.encode() + self._who + b',"dropped":' + str(dropped).encode() + b"}\n"

    def _is_plain(self, chunk: bytes) -> bool:
        """Whether every line is whole, short enough and right as it stands inside a JSON string: the fast way."""
        return chunk.endswith(b"\n") and len(chunk) <= self._bound_bytes and not chunk.translate(None, _PLAIN)

    def _line(self, head: bytes, line: bytes, records: list[bytes]) -> None:
        if len(line) > self._bound_bytes:
            line = self._cut(head, line, records)
        records.append(_text(head, line) if self.inside else _record(head, line))
        self.inside = False

    def _cut(self, head: bytes, line: bytes, records: list[bytes]) -> bytes:
        """Put out the parts of a line that is too long, each but the last; a character is not torn."""
        while len(line) > self._bound_bytes:
            starts = (
                end
                for end in range(self._bound_bytes, self._bound_bytes - CHARACTER_BYTES_MAX, -1)
                if not _continues(line[end])
            )
            end = next(starts, self._bound_bytes)
            records.append(_text(head, line[:end], partial=True))
            line, self.inside = line[end:], True
        return line


def _continues(byte: int) -> bool:
    """Whether UTF-8 has this byte only inside a character."""
    return 0x80 <= byte < 0xC0  # noqa: PLR2004 - the format's own numbers


def _record(head: bytes, line: bytes) -> bytes:
    if line[:1] in (b"{", b" ", b"\t") and (spliced := _spliced(head, line.strip())) is not None:
        return spliced
    return _text(head, line)


def _text(head: bytes, line: bytes, *, partial: bool = False) -> bytes:
    tail = b',"partial":true}\n' if partial else b"}\n"
    try:
        return head + b',"message":' + _encode(line.decode()) + tail
    except UnicodeDecodeError:
        message = _encode(line.decode(errors="backslashreplace"))
        return head + b',"message":' + message + b',"invalid_utf8":true' + tail


def _spliced(head: bytes, line: bytes) -> bytes | None:
    """Our fields and then those of the line, or None where it is no JSON object."""
    try:
        line.decode()  # Raw fields are not looked into
        fields = _fields(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if not fields:
        return head + b"}\n"
    clashes = fields.keys() & _OURS
    for name in sorted(clashes):
        renamed = f"app_{name}"
        while renamed in fields:
            renamed = f"app_{renamed}"
        fields[renamed] = fields.pop(name)
    return head + b"," + (_encode(fields) if clashes else line)[1:] + b"\n"
