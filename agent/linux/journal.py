"""A journal: records of one writer in memory that a next process finds as this one left them, sent ones and unsent.

A file of a fixed size: a head, and a ring of records, mapped twice in a row, so that the ring's end cuts no record.
Records are written where there is `room`, and count once `commit` has said so, in the store of one word, together with
a note of the writer's own. They are sent through a `Passage`, by turns: how far the journal has been handed over is one
word too, and what a SIGKILL leaves undecided is told by how much is in the passage. So no byte is lost or doubled.

Rules: records are whole lines; one process writes and sends; `fd` goes into the FD store. What was sent is kept, as
the writer's last lines, until its place is needed. Not handled here: who waits when too much is unsent.
"""

import os
from collections.abc import Sequence
from typing import Final

from agent.errors import invariant
from agent.linux import memfd
from agent.linux.memfd import Mapping
from agent.linux.passage import Passage

KEPT_BYTES: Final = 256 * 1024
APPEND_BYTES: Final = 704 * 1024
"""So much may be appended at once to a journal that is not full: records of 256 KiB of ordinary lines."""
SPARE_BYTES: Final = 4 * 1024
"""So much finds room when what was appended has filled the journal: last words, and what says that some are missing."""
NOTE_BYTES_MAX: Final = 256
_HEAD_BYTES: Final = memfd.PAGE_BYTES
_MAGIC: Final = int.from_bytes(b"rollway2", "little")
_WORD: Final = 8
_WHAT, _RING, _SENT, _TURN, _NEWEST = range(5)
"""Words of the head: what this is, bytes of the ring, how far it is handed over, where the turn began, which commit."""
_COMMITS: Final = (8, 64)
"""Where each of two commits begins, in words: the end of the records, the length of the note, the note."""
_NO_TURN: Final = 0
_VOID: Final = 1 << 63
"""In the word of the turn: what is in the passage is not to be sent, but what begins at the rest of the word."""


class Journal:
    """Make it with `create` or `adopt`. The descriptor is the journal's own until `close`.

    Offsets count all bytes that were ever appended, and begin with the size of the ring: none is 0.
    """

    def __init__(self, fd: int, ring_bytes: int) -> None:
        self.fd: Final = fd
        self._size: Final = ring_bytes
        self._ring: Final = Mapping(fd, _HEAD_BYTES, ring_bytes, times=2)
        try:
            self._head: Final = Mapping(fd, 0, _HEAD_BYTES)
        except OSError:
            self._ring.close()
            raise
        self._words: Final = self._head.bytes.cast("Q")
        self._end = ring_bytes
        self.note = b""
        """What the writer committed together with the newest records."""

    @classmethod
    def create(cls, name: str, kept_bytes: int = KEPT_BYTES) -> "Journal":
        ring_bytes = memfd.whole_pages(kept_bytes + APPEND_BYTES + SPARE_BYTES)
        with memfd.creating(name, _HEAD_BYTES + ring_bytes) as fd:
            journal = cls(fd, ring_bytes)
        words = journal._words
        words[_RING], words[_SENT] = ring_bytes, ring_bytes
        words[_COMMITS[0]] = ring_bytes
        words[_WHAT] = _MAGIC
        return journal

    @classmethod
    def adopt(cls, fd: int) -> "Journal | None":
        """Take up what an earlier process left; None where it cannot be trusted, and then `fd` stays the caller's."""
        ring_bytes = memfd.size_for_ever(fd) - _HEAD_BYTES
        if ring_bytes < APPEND_BYTES + SPARE_BYTES or ring_bytes % memfd.PAGE_BYTES:
            return None
        journal = cls(fd, ring_bytes)
        if not journal._has_found():
            journal._unmap()
            return None
        return journal

    def _has_found(self) -> bool:
        """Read what an earlier process committed; False where it cannot have been one."""
        words = self._words
        if words[_WHAT] != _MAGIC or words[_RING] != self._size or words[_NEWEST] >= len(_COMMITS):
            return False
        commit = _COMMITS[words[_NEWEST]]
        self._end, turn = words[commit], words[_TURN] & ~_VOID
        begin = (commit + 2) * _WORD
        self.note = bytes(self._head.bytes[begin : begin + min(words[commit + 1], NOTE_BYTES_MAX)])
        return (
            words[commit + 1] <= NOTE_BYTES_MAX
            and self._size <= words[_SENT] <= self._end <= words[_SENT] + self._size
            and (words[_TURN] == _NO_TURN or self._end - self._size <= turn <= self._end)
        )

    @property
    def unsent(self) -> int:
        """How many committed bytes are not sent, or are of a turn that is not over."""
        return self._end - ((self._words[_TURN] & ~_VOID) or self._words[_SENT])

    @property
    def is_full(self) -> bool:
        """Whether there is no `room`."""
        return self.unsent > self._size - APPEND_BYTES - SPARE_BYTES

    @property
    def room(self) -> memoryview:
        """Where the next records belong, `APPEND_BYTES` unless it is full: none of it is anybody's until `commit`."""
        return self.free[:APPEND_BYTES]

    @property
    def free(self) -> memoryview:
        """The same, without a bound."""
        place = self._end % self._size
        return self._ring.bytes[place : place + self._size - self.unsent]

    def commit(self, count: int, note: bytes | None = None) -> None:
        """Let so many bytes of `room` be records, together with the note: all or nothing."""
        note = self.note if note is None else note
        invariant(len(note) <= NOTE_BYTES_MAX, "a note is short")
        words = self._words
        newest = 1 - words[_NEWEST]
        commit = _COMMITS[newest]
        words[commit], words[commit + 1] = self._end + count, len(note)
        self._head.bytes[(commit + 2) * _WORD : (commit + 2) * _WORD + len(note)] = note
        words[_NEWEST] = newest
        self._end, self.note = self._end + count, note

    def append(self, records: Sequence[bytes], note: bytes | None = None) -> None:
        """Commit whole records, cut anywhere, and the note: all or nothing. The caller has looked for room."""
        whole = b"".join(records)
        self.free[: len(whole)] = whole
        self.commit(len(whole), note)

    @property
    def has_turn(self) -> bool:
        """Whether what is in the passage is of this journal, or was."""
        return self._words[_TURN] != _NO_TURN

    def hand_over(self, passage: Passage, count: int) -> None:
        """Fill the passage, which is empty, with at most `count` bytes: the turn is ours until `end_turn`."""
        words, sent = self._words, self._words[_SENT]
        words[_TURN] = sent
        place = sent % self._size
        # Whoever is killed in here has put nothing or something into the passage: `resume_turn` looks.
        words[_SENT] = sent + passage.put(self._ring.bytes[place : place + min(count, self._end - sent)])

    def end_turn(self) -> None:
        """The passage is empty, or is filled again by us."""
        self._words[_TURN] = _NO_TURN

    def resume_turn(self, passage: Passage) -> None:
        """Be in step with the passage of which an earlier process had filled some, sent some, or neither."""
        words = self._words
        if words[_TURN] & _VOID:
            passage.clear()
            words[_SENT] = words[_TURN] & ~_VOID
            words[_TURN] = _NO_TURN
        elif words[_SENT] == words[_TURN]:
            words[_SENT] = min(words[_SENT] + passage.level, self._end)

    def take_back(self, passage: Passage, *, whole_records: bool) -> None:
        """Empty the passage, to send it again; from the start of a record for a reader that has not seen that part."""
        words = self._words
        begin = words[_SENT] - passage.level
        if whole_records:
            first = min(words[_TURN] & ~_VOID, self._kept_from)
            place = first % self._size
            begin = first + bytes(self._ring.bytes[place : place + begin - first]).rfind(b"\n") + 1
        words[_TURN] = begin | _VOID
        self.resume_turn(passage)

    def left(self, passage: Passage) -> int:
        """How many committed bytes are not sent: here, and in the passage if that is ours."""
        return self._end - self._words[_SENT] + (passage.level if self.has_turn else 0)

    def give_up(self, passage: Passage, count: int) -> int:
        """Count the next `count` bytes as sent, those in the passage first; how many records that are."""
        begin = self._end - self.left(passage)
        place = begin % self._size
        records = bytes(self._ring.bytes[place : place + count]).count(b"\n")
        self._words[_TURN] = (begin + count) | _VOID
        self.resume_turn(passage)
        return records

    def next_unsent(self, count: int) -> bytes:
        """The next bytes that are not handed over, for where no pipe leads; `skip` says that they are sent."""
        place = self._words[_SENT] % self._size
        return bytes(self._ring.bytes[place : place + min(count, self._end - self._words[_SENT])])

    def skip(self, count: int) -> None:
        """Count the next bytes as sent."""
        self._words[_SENT] += count

    @property
    def _kept_from(self) -> int:
        """From here on all bytes are there, whatever is being written to `room`."""
        return max(self._end - (self._size - APPEND_BYTES - SPARE_BYTES), self._size)

    def last(self) -> bytes:
        """The newest whole records, as many as are kept."""
        before = self._kept_from - 1  # a newline, unless a record is cut there
        place = before % self._size
        kept = bytes(self._ring.bytes[place : place + self._end - before])
        return kept[1:] if before < self._size else kept[kept.find(b"\n") + 1 :]

    def close(self) -> None:
        self._unmap()
        os.close(self.fd)

    def _unmap(self) -> None:
        self._words.release()
        self._head.close()
        self._ring.close()
