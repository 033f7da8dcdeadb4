"""Numbered lines of 100 bytes: made as fast as a pipe takes them, found again in whatever a supervisor made of them.

Rules: lines are made by blocks of a thousand, so that the writer is never what is measured. They are looked for by
columns where all records are of one length, else one by one: the reader shares a core with the writer.
"""

import re
from collections.abc import Iterator
from typing import Final

LINE_BYTES: Final = 100
BLOCK_LINES: Final = 1000
LINES_MAX: Final = 10**10
_DIGITS: Final = 10
_PLACE: Final = b"P" * (_DIGITS - 3)
_NUMBER: Final = re.compile(rb"L(\d{10}) ")
_FORMS: Final = {
    "plain": (b"", b"GET /catalog/items/4711 200 12ms 5321 bytes, user 8d2f1c, cache hit, no retries so far", b""),
    "quotes": (b"", b'"GET /catalog/items/4711 HTTP/1.1" 200 5321 "https://shop.example/" "a browser 1.0" 12ms', b""),
    "json": (b'{"level":"info","n":"', b'","path":"/catalog/items/4711","status":200,"ms":12,"user":"8d"', b"}"),
}
KINDS: Final = tuple(_FORMS)


class Lines:
    """All lines of one kind: `block(n)` has those from 1000 * n on."""

    def __init__(self, kind: str) -> None:
        before, after, end = _FORMS[kind]
        room = LINE_BYTES - 1 - len(before) - 1 - _DIGITS - 1 - len(end)
        filled = after[:room] + b" " * (room - len(after))
        self._template = b"".join(
            before + b"L" + _PLACE + b"%03d " % number + filled + end + b"\n" for number in range(BLOCK_LINES)
        )

    def block(self, number: int) -> bytes:
        return self._template.replace(_PLACE, b"%07d" % number)

    def blocks(self, lines: int) -> Iterator[bytes]:
        for number in range(lines // BLOCK_LINES):
            yield self.block(number)


class Tally:
    """Counts what arrived of lines 0, 1, 2, …: `lost` were left out, `wrong` came twice or out of order."""

    def __init__(self) -> None:
        self.next = 0
        self.lost = 0
        self.wrong = 0
        self._rest = b""
        self._lines = Lines("plain")
        self._in_block = self._lines.block(0).index(b"L") + 1

    def feed(self, data: bytes) -> None:
        """Take the next bytes of what came out; a record may be cut anywhere."""
        data = self._rest + data
        done = self._by_columns(data)
        if not done:
            done = data.rfind(b"\n") + 1
            self._one_by_one(data[:done])
        self._rest = data[done:]

    def end(self) -> None:
        """No more comes: what a last record without a newline has counts as well."""
        self._one_by_one(self._rest)
        self._rest = b""

    def _by_columns(self, data: bytes) -> int:
        """Look at each digit of all records at once; how many bytes that were, 0 where they are not all as expected."""
        length = data.find(b"\n") + 1
        first = _NUMBER.search(data, 0, length)
        if first is None:
            return 0
        count, start = len(data) // length, first.start(1)
        if data[length - 1 :: length] != b"\n" * count:
            return 0
        until = (self.next + count - 1) // BLOCK_LINES + 1
        expected = b"".join(map(self._lines.block, range(self.next // BLOCK_LINES, until)))
        skipped = self.next % BLOCK_LINES * LINE_BYTES + self._in_block
        for digit in range(_DIGITS):
            wanted = expected[skipped + digit :: LINE_BYTES][:count]
            if data[start + digit : count * length : length] != wanted:
                return 0
        self.next += count
        return count * length

    def _one_by_one(self, data: bytes) -> None:
        for number in map(int, _NUMBER.findall(data)):
            if number < self.next:
                self.wrong += 1
            else:
                self.lost += number - self.next
                self.next = number + 1
