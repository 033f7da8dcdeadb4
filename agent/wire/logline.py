r"""What an instance writes, as JSON lines: one stream's bytes in, records out, each ending in a newline.

Rules: split at newline only; no byte is lost and none changes unmarked. A line that already is a JSON object keeps its
bytes with our fields before them; where it has a field of our name, ours stays and theirs is kept as `app_<name>`.
Marks: `"partial":true`, the newline did not come with this record (a line beyond the bound, or the end of the stream);
`"invalid_utf8":true`, bytes that are no UTF-8 stand in the message as `\xff`. Not handled here: time (an argument),
reading, writing, and what to do when the reader of the records is slow.

Speed: what a line costs is most of what an app's output costs the agent, so lines are not looked at one by one where it
can be helped: text goes through a loop in C, from the memory where it was read to the memory where records are kept,
and many objects are one at once. Where some are none, halves of them are tried, and only what stays mixed when it is
small is taken line by line.
"""

from typing import Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from agent.errors import invariant
from agent.wire.textlines import ENDED, FULL, text_records

LINE_BYTES_MAX: Final = 64 * 1024
CHARACTER_BYTES_MAX: Final = 4
_PIECE_BYTES: Final = 16 * 1024
"""So many bytes of objects are looked at together: copies of them stay in the processor's cache."""
_MIXED_BYTES: Final = 4 * 1024
"""Below this, halves cost more than lines."""
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


class Fed(NamedTuple):
    """What became of bytes that were given to `feed`."""

    used: int
    """So many of them are in records; the rest is to be given again, with what comes after it."""
    made: int
    """So long are the records."""
    is_full: bool = False
    """Whether the records of the rest found no room."""


class LogLines:
    """Cuts one stream into records. What is behind the last newline stays with the caller, who gives it again."""

    def __init__(self, source: Source, bound_bytes: int = LINE_BYTES_MAX, *, inside: bool = False) -> None:
        self._who = b'","' + _encode(source)[2:-1]
        invariant(bound_bytes > CHARACTER_BYTES_MAX, "a part of a line has room for a character")
        self._bound_bytes = bound_bytes
        self.inside = inside
        """Whether the next byte continues a line whose first parts are out already."""

    def feed(self, data: memoryview, ts: str, out: memoryview) -> Fed:
        """Write to `out` the records of all lines that end in `data`, or of as many as find room.

        `data` goes on where the last call's `used` ended, `ts` is when it was read. Both memories are writable.
        """
        head = b'{"ts":"' + ts.encode() + self._who
        text_head = head + b',"message":"'
        used = made = 0
        while True:
            if not self.inside:
                written = text_records(
                    data[used:], out[made:], bound_bytes=self._bound_bytes, head=text_head, tail=b'"}\n'
                )
                used, made = used + written.used, made + written.made
                if written.stop == ENDED or (written.stop == FULL and made):
                    return Fed(used, made, is_full=written.stop == FULL)
            some = bytes(data[used : used + max(_PIECE_BYTES, self._bound_bytes + 1)])
            count, records, self.inside = self._next(head, some, room=len(out) - made)
            if count == 0:
                return Fed(used, made, is_full=bool(records))
            used += count
            for part in records:
                out[made : made + len(part)] = part
                made += len(part)

    def end(self, rest: bytes, ts: str) -> bytes:
        """Give what was left without a newline, marked, when the stream is over."""
        head, self.inside = b'{"ts":"' + ts.encode() + self._who, False
        return _text(head, rest, partial=True) if rest else b""

    def gap(self, dropped: int, ts: str) -> bytes:
        """Give the record that stands for so many that found no room."""
        return b'{"ts":"' + ts.encode() + self._who + b',"dropped":' + str(dropped).encode() + b"}\n"

    def _next(self, head: bytes, some: bytes, room: int) -> tuple[int, list[bytes], bool]:
        """How many of the first bytes are in records, these, and whether the next byte is inside a line.

        None where there is no whole line, or where already the first one's record finds no room: then it is given.
        """
        end = some.find(b"\n") + 1
        if end > self._bound_bytes + 1 or (end == 0 and len(some) > self._bound_bytes):
            part = self._part(some)
            records = [_text(head, some[:part], partial=True)]
            return (part if len(records[0]) <= room else 0), records, (self.inside or len(records[0]) <= room)
        if end == 0:
            return 0, [], self.inside
        if not self.inside and some.lstrip(b" \t\r\v\f")[:1] == b"{":
            piece = some[: some.rfind(b"\n", 0, _PIECE_BYTES) + 1 or end]
            records = _of_each(head, piece) if self._are_short(piece) else []
            if records and sum(map(len, records)) <= room:
                return len(piece), records, False
        records = [_text(head, some[: end - 1]) if self.inside else _record(head, some[: end - 1])]
        has_room = len(records[0]) <= room
        return (end if has_room else 0), records, (self.inside and not has_room)

    def _are_short(self, lines: bytes) -> bool:
        """Whether no line is beyond the bound: from each start of a line a newline is in reach."""
        start, left = 0, len(lines)
        while left - start > self._bound_bytes:
            start = lines.rfind(b"\n", start, start + self._bound_bytes + 1) + 1
            if start == 0:
                return False
        return True

    def _part(self, line: bytes) -> int:
        """Where a line that is too long is cut: a character is not torn."""
        starts = (
            end
            for end in range(self._bound_bytes, self._bound_bytes - CHARACTER_BYTES_MAX, -1)
            if not _continues(line[end])
        )
        return next(starts, self._bound_bytes)


def _continues(byte: int) -> bool:
    """Whether UTF-8 has this byte only inside a character."""
    return 0x80 <= byte < 0xC0  # noqa: PLR2004 - the format's own numbers


def _of_each(head: bytes, lines: bytes) -> list[bytes]:
    """The records of whole lines of which some are objects, as many at once as are alike."""
    if (spliced := _objects(head, lines)) is not None:
        return [spliced]
    middle = lines.find(b"\n", len(lines) // 2) + 1
    if len(lines) > _MIXED_BYTES and middle < len(lines):
        return _of_each(head, lines[:middle]) + _of_each(head, lines[middle:])
    return [_record(head, line) for line in lines[:-1].split(b"\n")]


def _objects(head: bytes, lines: bytes) -> bytes | None:
    """The records of lines that all are JSON objects with fields, none of our names; None where some are not.

    A newline that has an object's end before it and a field after it parts two objects: JSON has a comma there. When
    all newlines are such, and there are as many objects as lines, each line is one object.
    """
    if not (lines.startswith(b'{"') and lines.endswith(b"}\n")):
        return None
    try:
        found = _clashes_of_each(lines)
        lines.decode()  # what is not ours was only skipped
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    count = lines.count(b"\n")
    if len(found) != count or found.count(_NONE) != count:
        return None
    start = head + b","
    spliced = start + lines[1:].replace(b'}\n{"', b"}\n" + start + b'"')
    if len(spliced) - len(lines) != count * (len(start) - 1):
        return None
    return spliced


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
