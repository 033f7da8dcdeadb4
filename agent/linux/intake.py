"""An intake: bytes that were taken from a pipe and are nobody's yet, in memory where a next process finds them.

splice(2) moves the bytes of a pipe to the file's position, and the position with them, so that a SIGKILL leaves both in
step. The memory is used again and again: where most of it is used, what is left is copied to its beginning and the
position set back to behind that, in steps that a next process goes again where they were cut off.

Rules: one process takes; `fd` goes into the FD store. Counts are of all bytes that were ever taken.
"""

import os
import struct
from typing import Final

from agent.linux import memfd
from agent.linux.memfd import Mapping

INTAKE_BYTES: Final = 512 * 1024
_SIZE: Final = INTAKE_BYTES + memfd.PAGE_BYTES
_HEAD: Final = struct.Struct("=4Q")
_BEFORE, _MOVING, _MOVED, _BEFORE_THEN = range(4)
"""Words of the head: how many bytes were taken before the one at `_FIRST`; whether that is just being changed, and to
where the position then goes, and how many they are then."""
_FIRST: Final = 64
"""Behind the head: they share a page, which is none before there is something in it."""
_AT_REST_BYTES: Final = 16 * 1024
"""So much memory a stream that is used up may take before it begins anew: it is cheap then."""


class Intake:
    """Make it with `create` or `adopt`."""

    def __init__(self, fd: int) -> None:
        self.fd: Final = fd
        self._memory: Final = Mapping(fd, 0, _SIZE)
        self._words: Final = self._memory.bytes[:_FIRST].cast("Q")
        # Not from the mapping, which would make a page of nothing.
        self._before: int
        self._before, moving, moved, _ = _HEAD.unpack(os.pread(fd, _HEAD.size, 0))
        if moving and moved <= _SIZE:
            self._move()
        self._position = memfd.position(fd)

    @classmethod
    def create(cls, name: str) -> "Intake":
        with memfd.creating(name, _SIZE) as fd:
            memfd.set_position(fd, _FIRST)
            return cls(fd)

    @classmethod
    def adopt(cls, fd: int) -> "Intake | None":
        """Take up what an earlier process left; None where it cannot be trusted, and then `fd` stays the caller's."""
        if memfd.size_for_ever(fd) != _SIZE:
            return None
        intake = cls(fd)
        if not _FIRST <= intake._position <= _SIZE:
            intake._unmap()
            return None
        return intake

    @property
    def taken(self) -> int:
        return self._before + self._position - _FIRST

    def take(self, pipe: int, count: int) -> None:
        """Take what waits, at most `count` bytes; BlockingIOError where nothing does, or where `forget` comes first."""
        room = _SIZE - self._position
        if room == 0:
            raise BlockingIOError
        self._position += memfd.take(self.fd, pipe, min(count, room))

    def since(self, used: int) -> memoryview | None:
        """What was taken after the first `used` bytes, until the next `forget`; None where it is not there."""
        begin = used - self._before + _FIRST
        return self._memory.bytes[begin : self._position] if _FIRST <= begin <= self._position else None

    def forget(self, used: int) -> None:
        """Nobody asks for the first `used` bytes any more: their memory is used again where that is worth it."""
        left = self.taken - used
        is_worth_it = self._position > (_FIRST + _AT_REST_BYTES if left == 0 else _SIZE // 2)
        if is_worth_it and 2 * left <= self._position - _FIRST:  # what is copied is not written over
            self._memory.bytes[_FIRST : _FIRST + left] = self._memory.bytes[self._position - left : self._position]
            words = self._words
            words[_MOVED], words[_BEFORE_THEN] = _FIRST + left, used
            words[_MOVING] = True
            self._move()
            self._position = _FIRST + left

    def close(self) -> None:
        self._unmap()
        os.close(self.fd)

    def _unmap(self) -> None:
        self._words.release()
        self._memory.close()

    def _move(self) -> None:
        """Each step may be gone twice."""
        words = self._words
        memfd.set_position(self.fd, words[_MOVED])
        words[_BEFORE] = self._before = words[_BEFORE_THEN]
        words[_MOVING] = False
