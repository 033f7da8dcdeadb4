r"""What an instance writes, as JSON lines: one stream's bytes in, records out, each ending in a newline.

Rules: split at newline only; no byte is lost and none changes unmarked. A line that already is a JSON object keeps its
bytes with our fields before them; where it has a field of our name, ours stays and theirs is kept as `app_<name>`.
Marks: `"partial":true`, the newline did not come with this record (a line beyond the bound, or the end of the stream);
`"invalid_utf8":true`, bytes that are no UTF-8 stand in the message as `\xff`. Not handled here: time (an argument),
reading, writing, and what to do when the reader of the records is slow.

Speed: what a line costs in Python is most of what an app's output costs the agent, so lines are not looked at one by
one where it can be helped: many at once are text, or many at once are objects. Where neither is true, halves of them
are tried, and only what stays mixed when it is small is taken line by line.
"""

import re
from typing import Final

import msgspec
from msgspec import Raw, Struct

from agent.errors import invariant

LINE_BYTES_MAX: Final = 64 * 1024
CHARACTER_BYTES_MAX: Final = 4
_PIECE_BYTES: Final = 16 * 1024
"""So much is encoded at once: copies of it stay in the processor's cache, and malloc has room for them at hand."""
_MIXED_BYTES: Final = 4 * 1024
"""Below this, halves cost more than lines."""
_MARK: Final = b"\x7f"
"""Stands for the newline while many lines are encoded as one string: JSON leaves it as it is, lines rarely have it."""
_MAY_BE_OBJECT: Final = re.compile(rb"\n[ \t\r\v\f]*\{")
_encode: Final = msgspec.json.Encoder().encode
_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode


class _Clashes(Struct, frozen=True, gc=False):
    """The fields of a line that are named as ours; equal to `_NONE` where there are none."""

    ts: Raw = Raw()
    app: Raw = Raw()
    env: Raw = Raw()
    release: Raw = Raw()
    process: Raw = Raw()
    instance: Raw = Raw()
    pid: Raw = Raw()
    stream: Raw = Raw()


_NONE: Final = _Clashes()
_OURS: Final = frozenset(_Clashes.__struct_fields__)
_clashes: Final = msgspec.json.Decoder(_Clashes).decode
_clashes_of_each: Final = msgspec.json.Decoder(_Clashes).decode_lines


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

    def feed(self, chunk: bytes, ts: str) -> list[bytes]:
        """Give the records of all lines that end in `chunk`, one after another; `ts` is when it was read."""
        head = b'{"ts":"' + ts.encode() + self._who
        records: list[bytes] = []
        begin, end = 0, chunk.rfind(b"\n") + 1
        if end and (self._rest or self.inside):
            begin = chunk.find(b"\n") + 1
            self._line(head, self._rest + chunk[: begin - 1], records)
            self._rest = b""
        while begin < end:
            piece = chunk.rfind(b"\n", begin, begin + _PIECE_BYTES) + 1 or chunk.find(b"\n", begin) + 1
            self._whole(head, chunk[begin:piece], records)
            begin = piece
        self._rest = self._cut(head, self._rest + chunk[end:], records)
        return records

    def end(self, ts: str) -> list[bytes]:
        """Give what was left without a newline, marked, when the stream is over."""
        head, rest = b'{"ts":"' + ts.encode() + self._who, self._rest
        self._rest, self.inside = b"", False
        return [_text(head, rest, partial=True)] if rest else []

    def gap(self, dropped: int, ts: str) -> bytes:
        """Give the record that stands for so many that found no room."""
        return b'{"ts":"' + ts.encode() + self._who + b',"dropped":' + str(dropped).encode() + b"}\n"

    def _whole(self, head: bytes, lines: bytes, records: list[bytes]) -> None:
        """Put out lines that are all there, as many at once as are alike."""
        may_be_objects = b"{" in lines and (lines.lstrip(b" \t\r\v\f")[:1] == b"{" or _MAY_BE_OBJECT.search(lines))
        at_once = _objects if may_be_objects else _texts
        if self._are_short(lines) and at_once(head, lines, records):
            return
        middle = lines.find(b"\n", len(lines) // 2) + 1
        if len(lines) > _MIXED_BYTES and middle < len(lines):
            self._whole(head, lines[:middle], records)
            self._whole(head, lines[middle:], records)
        else:
            for line in lines[:-1].split(b"\n"):
                self._line(head, line, records)

    def _are_short(self, lines: bytes) -> bool:
        """Whether no line is beyond the bound: from each start of a line a newline is in reach."""
        start, left = 0, len(lines)
        while left - start > self._bound_bytes:
            start = lines.rfind(b"\n", start, start + self._bound_bytes + 1) + 1
            if start == 0:
                return False
        return True

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


def _texts(head: bytes, lines: bytes, records: list[bytes]) -> bool:
    """Put out the records of lines that are all text; False where they cannot be made at once."""
    if _MARK in lines:
        return False
    try:
        text = lines[:-1].replace(b"\n", _MARK).decode()
    except UnicodeDecodeError:
        return False
    start = head + b',"message":'
    records += (start, _encode(text).replace(_MARK, b'"}\n' + start + b'"'), b"}\n")
    return True


def _objects(head: bytes, lines: bytes, records: list[bytes]) -> bool:
    """Put out the records of lines that all are JSON objects with fields, none of our names; False where some are not.

    A newline that has an object's end before it and a field after it parts two objects: JSON has a comma there. When
    all newlines are such, and there are as many objects as lines, each line is one object.
    """
    if not (lines.startswith(b'{"') and lines.endswith(b"}\n")):
        return False
    try:
        found = _clashes_of_each(lines)
        lines.decode()  # what is not ours was only skipped
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    count = lines.count(b"\n")
    if len(found) != count or found.count(_NONE) != count:
        return False
    start = head + b","
    spliced = start + lines[1:].replace(b'}\n{"', b"}\n" + start + b'"')
    if len(spliced) - len(lines) != count * (len(start) - 1):
        return False
    records.append(spliced)
    return True


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
        line.decode()  # what is not ours is only skipped
        if _clashes(line) == _NONE:
            return head + (b"," + line[1:] if line[1:-1].strip() else b"}") + b"\n"
        fields = _fields(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    for name in sorted(fields.keys() & _OURS):
        renamed = f"app_{name}"
        while renamed in fields:
            renamed = f"app_{renamed}"
        fields[renamed] = fields.pop(name)
    return head + b"," + _encode(fields)[1:] + b"\n"
