"""The one spelling of a tar archive: for every file its header is known to the byte before it is read.

POSIX.1-2001 (pax), owner 0:0 without names, no folders, extended records only where the plain header has no room.
Because nothing is left to choice, a reader need not parse: it compares. This spelling is part of every build's digest:
it must never change.
"""

from typing import Final

from agent.model.build import FileEntry

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)

_NAME_MAX: Final = 100
_SIZE_MAX: Final = 8**11 - 1
_REGULAR: Final = b"0"
_SYMLINK: Final = b"2"
_EXTENDED: Final = b"x"


def header(entry: FileEntry, mtime_s: int) -> bytes:
    """Everything that stands before the content of `entry`."""
    path, link = entry.path.encode(), (entry.link or "").encode()
    records = b""
    if len(path) > _NAME_MAX or not path.isascii():
        records += _record(b"path", path)
    if len(link) > _NAME_MAX or not link.isascii():
        records += _record(b"linkpath", link)
    if entry.size_bytes > _SIZE_MAX:
        records += _record(b"size", b"%d" % entry.size_bytes)
    kind = _REGULAR if entry.link is None else _SYMLINK
    size = entry.size_bytes if entry.size_bytes <= _SIZE_MAX else 0
    plain = _block(path, mode=entry.mode, size=size, mtime_s=mtime_s, kind=kind, link=link)
    if not records:
        return plain
    extended = _block(b"././@PaxHeader", size=len(records), kind=_EXTENDED)
    return extended + records + padding(len(records)) + plain


def padding(size_bytes: int) -> bytes:
    """What fills the last block of a content of `size_bytes`."""
    return bytes(-size_bytes % BLOCK)


def shown_name(block: bytes) -> str:
    """The name that a foreign header block shows, for a message."""
    return block[:_NAME_MAX].rstrip(b"\0").decode(errors="replace")


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH key=value`, where LENGTH counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _block(name: bytes, *, mode: int = 0, size: int, mtime_s: int = 0, kind: bytes, link: bytes = b"") -> bytes:
    before = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (_field(name), mode, 0, 0, size, mtime_s)
    after = b"%b%bustar\x0000" % (kind, _field(link))
    after = after.ljust(BLOCK - len(before) - 8, b"\0")
    checksum = sum(before) + 8 * ord(" ") + sum(after)
    return before + b"%06o\0 " % checksum + after


def _field(text: bytes) -> bytes:
    return text[:_NAME_MAX].ljust(_NAME_MAX, b"\0")
