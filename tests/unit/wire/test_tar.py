"""The tar that Rollway writes, read by somebody else's tar."""

import io
import tarfile

from hypothesis import example, given
from hypothesis import strategies as st

from agent.model.build import FileEntry
from agent.wire import tar

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=120)
paths = st.lists(names.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=3).map("/".join)
regular = st.builds(
    lambda path, content, mode: (FileEntry(path=path, mode=mode, size_bytes=len(content)), content),
    paths,
    st.binary(max_size=1100),
    st.sampled_from([0o644, 0o755]),
)
links = st.builds(lambda path, link: (FileEntry(path=path, mode=0o777, size_bytes=0, link=link), b""), paths, paths)


@given(st.lists(regular | links, max_size=4), st.integers(0, 8**11 - 1))
@example([(FileEntry(path="a" * 100, mode=0o644, size_bytes=0), b"")], 0)
@example([(FileEntry(path="a" * 101, mode=0o644, size_bytes=0), b"")], 0)
@example([(FileEntry(path="ä" * 49, mode=0o777, size_bytes=0, link="b" * 101), b"")], 0)
def test_others_read_what_was_written(files: list[tuple[FileEntry, bytes]], mtime_s: int) -> None:
    """Python's tarfile finds every path, mode, time, link and content that went in, and no owner."""
    data = b"".join(tar.header(entry, mtime_s) + content + tar.padding(len(content)) for entry, content in files)
    with tarfile.open(fileobj=io.BytesIO(data + tar.END), errorlevel=2) as archive:
        found = [(m.name, m.mode, m.mtime, m.linkname or None, m.size, m.uid, m.gid, m.uname, m.gname) for m in archive]
        contents = [file.read() if (file := archive.extractfile(m)) else b"" for m in archive if m.isreg()]
    assert found == [(e.path, e.mode, mtime_s, e.link, e.size_bytes, 0, 0, "", "") for e, _ in files]
    assert contents == [content for entry, content in files if entry.link is None]


def test_a_size_beyond_the_plain_header_is_written() -> None:
    """A file of more than 8 GiB has its size in an extended record."""
    size = 8**11 + 5
    with tarfile.open(fileobj=io.BytesIO(tar.header(FileEntry(path="big", mode=0o644, size_bytes=size), 0))) as archive:
        member = archive.next()
        assert member is not None
        assert member.size == size


def test_the_spelling_never_changes() -> None:
    """The bytes of a header are fixed for ever: builds of yesterday must unpack tomorrow."""
    block = tar.header(FileEntry(path="bin/web", mode=0o755, size_bytes=12), 1_700_000_000)
    assert block.rstrip(b"\0") == (
        b"bin/web".ljust(100, b"\0")
        + b"0000755\x000000000\x000000000\x0000000000014\x0014524770400\x00"
        + b"007255\x00 0"
        + bytes(100)
        + b"ustar\x0000"
    )
    assert len(block) == tar.BLOCK
