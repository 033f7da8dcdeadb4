"""A journal: records of one writer in memory that a next process finds as this one left them, sent ones and unsent.

Three things are kept: the records, how far they are committed (with a note of the writer's own, in one write), and
how far they are sent. The last is the open file's position, which sendfile(2) moves together with the bytes: a SIGKILL
at any moment neither loses nor doubles a byte. What was sent is kept up to a bound, as the writer's last lines.

Rules: records are whole lines; one process writes and sends; `fd` goes into the FD store. Not handled here: who waits
when too much is unsent.
"""

import os
import struct
from collections.abc import Sequence
from typing import Final

from agent.errors import invariant
from agent.linux import memfd

KEPT_BYTES: Final = 256 * 1024
NOTE_BYTES_MAX: Final = 256
_MAGIC: Final = b"rollway1"
_HEAD: Final = struct.Struct("=8sQQI")  # magic, end, start, length of the note that follows
_FIRST: Final = memfd.PAGE_BYTES  # the head has a page of its own, which is never given back
_STEP_BYTES: Final = 128 * 1024
_BUFFERS_MAX: Final = os.sysconf("SC_IOV_MAX")
_LOOK_BACK_BYTES: Final = 512 * 1024
"""So much before the position stays: a record that is sent in part is whole in it, to be seen and to be sent again."""


class Journal:
    """Make it with `create` or `adopt`. The descriptor is the journal's own until `close`."""

    def __init__(self, fd: int, end: int, start: int, note: bytes, kept_bytes: int) -> None:
        self.fd: Final = fd
        self.note = note
        """What the writer committed together with the newest records."""
        self._end, self._start = end, start
        self._sent = memfd.position(fd)
        self._kept_bytes: Final = kept_bytes

    @classmethod
    def create(cls, name: str, kept_bytes: int = KEPT_BYTES) -> "Journal":
        fd = memfd.create(name)
        memfd.set_position(fd, _FIRST)
        journal = cls(fd, _FIRST, _FIRST, b"", kept_bytes)
        journal._commit()
        return journal

    @classmethod
    def adopt(cls, fd: int, kept_bytes: int = KEPT_BYTES) -> "Journal | None":
        """Take up what an earlier process left; None where it cannot be trusted, and then `fd` stays the caller's."""
        try:
            head, sent, size = os.pread(fd, _HEAD.size + NOTE_BYTES_MAX, 0), memfd.position(fd), os.fstat(fd).st_size
        except OSError:
            return None
        if len(head) < _HEAD.size:
            return None
        magic, end, start, length = _HEAD.unpack_from(head)
        if magic != _MAGIC or length > NOTE_BYTES_MAX or not _FIRST <= start <= sent <= end <= max(size, _FIRST):
            return None
        return cls(fd, end, start, head[_HEAD.size : _HEAD.size + length], kept_bytes)

    @property
    def unsent(self) -> int:
        """How many committed bytes nobody has been given yet."""
        return self._end - self._sent

    def append(self, records: Sequence[bytes], note: bytes | None = None) -> None:
        """Commit whole records, cut anywhere, and the note: all or nothing."""
        end = self._end
        for first in range(0, len(records), _BUFFERS_MAX):
            end += _write(self.fd, records[first : first + _BUFFERS_MAX], end)
        self._end = end
        if note is not None:
            invariant(len(note) <= NOTE_BYTES_MAX, "a note is short")
            self.note = note
        self._commit()

    def send(self, out: int, count: int) -> int:
        """Send the next unsent bytes to `out` by sendfile(2); how many went. Raises what the system says."""
        sent = os.sendfile(out, self.fd, None, min(count, self.unsent))
        self._sent += sent
        self._trim()
        return sent

    def next_unsent(self, count: int) -> bytes:
        """The next unsent bytes, for a place to which sendfile(2) cannot write; `skip` then says that they are sent."""
        return os.pread(self.fd, min(count, self.unsent), self._sent)

    def skip(self, count: int) -> None:
        """Count the next bytes as sent."""
        self._sent += count
        memfd.set_position(self.fd, self._sent)
        self._trim()

    @property
    def inside_record(self) -> bool:
        """Whether a part of a record is sent and the rest is not: nothing else may be sent to that reader before."""
        return self.unsent > 0 and self._sent > self._start and os.pread(self.fd, 1, self._sent - 1) != b"\n"

    def send_record_again(self) -> None:
        """Go back to the start of the record of which a part is sent: for a reader that has not seen that part."""
        count = min(_LOOK_BACK_BYTES, self._sent - self._start)
        before = os.pread(self.fd, count, self._sent - count)
        self.skip(before.rfind(b"\n") + 1 - len(before))

    def last(self) -> bytes:
        """The newest whole records, as many as are kept."""
        begin = max(self._start, self._end - self._kept_bytes)
        kept = os.pread(self.fd, self._end - begin, begin)
        is_cut = begin > _FIRST and os.pread(self.fd, 1, begin - 1) != b"\n"
        return kept[kept.find(b"\n") + 1 :] if is_cut else kept

    def close(self) -> None:
        os.close(self.fd)

    def _trim(self) -> None:
        """Give back what is sent and beyond what is kept; the head says so before it is gone."""
        start = memfd.page_floor(min(self._sent - _LOOK_BACK_BYTES, self._end - self._kept_bytes))
        if start - self._start >= _STEP_BYTES:
            before, self._start = self._start, start
            self._commit()
            memfd.forget(self.fd, before, start)

    def _commit(self) -> None:
        # One small write into one page: a signal is taken before it or after it, never in its middle.
        os.pwrite(self.fd, _HEAD.pack(_MAGIC, self._end, self._start, len(self.note)) + self.note, 0)


def _write(fd: int, buffers: Sequence[bytes], offset: int) -> int:
    """Write all of them; how many bytes that are."""
    count = sum(map(len, buffers))
    written = os.pwritev(fd, buffers, offset)
    if written < count:
        left = memoryview(b"".join(buffers))
        while written < count:
            written += os.pwrite(fd, left[written:], offset + written)
    return count
