"""Lines for a person: whole, behind the name of who wrote them, byte for byte."""

import pytest

from agent.wire.plainline import Margin, PlainLines

MARGIN = Margin(name="web.1", width=8)
GREEN = Margin(name="web.1", width=8, colour=32)


def cut(text: bytes, size: int, *, stream: str = "stdout", margin: Margin = MARGIN, bound: int = 64) -> bytes:
    """What comes out of `text` that is fed in pieces of `size`."""
    lines, shown, rest = PlainLines(margin, stream, bound_bytes=bound), b"", b""
    for at in range(0, len(text), size):
        made, rest = fed(lines, rest + text[at : at + size])
        shown += made
    return shown + lines.end(rest, "")


def fed(lines: PlainLines, data: bytes, room: int = 4096) -> tuple[bytes, bytes]:
    """What comes out of it, and what is left."""
    out = memoryview(bytearray(room))
    used, made, is_full = lines.feed(memoryview(data), "", out)
    if not is_full:
        return bytes(out[:made]), data[used:]
    assert made, "a line that finds no room in an empty place stays for ever"
    more, rest = fed(lines, data[used:], room)
    return bytes(out[:made]) + more, rest


SAID = {
    "one line": (b"hello\n", b"web.1    | hello\n"),
    "JSON, as it is": (b'{"a": 1}\n', b'web.1    | {"a": 1}\n'),
    "empty lines": (b"\n\n", b"web.1    | \nweb.1    | \n"),
    "no newline at the end": (b"a\nb", b"web.1    | a\nweb.1    | b\n"),
    "what is no UTF-8, and a NUL": (b"\xff\x00\n", b"web.1    | \xff\x00\n"),
    "a carriage return": (b"50%\r100%\r\n", b"web.1    | 50%\r100%\r\n"),
    "nothing": (b"", b""),
}


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("text", "shown"), SAID.values(), ids=list(SAID))
def test_lines(text: bytes, shown: bytes, size: int) -> None:
    """In whatever pieces an app writes them, its lines are shown whole."""
    assert cut(text, size) == shown


def test_a_line_without_end_is_shown_in_parts() -> None:
    """Memory is bounded; every part is a line, those that go on are told by their sign, and no byte is lost."""
    shown = cut(b"x" * 10 + b"\nnext\n", 1, bound=4)
    assert shown == b"web.1    | xxxx\nweb.1    + xxxx\nweb.1    + xx\nweb.1    | next\n"


def test_standard_error_is_told_apart() -> None:
    """By its sign alone: much of what goes there is no error."""
    assert cut(b"careful\n", 100, stream="stderr") == b"web.1    : careful\n"


def test_colours_of_an_app_end_with_its_line() -> None:
    """The name is coloured; what an app colours itself does not run into the next line."""
    assert cut(b"plain\n", 100, margin=GREEN) == b"\x1b[32mweb.1    |\x1b[0m plain\n"
    assert cut(b"\x1b[31mred\n", 100, margin=GREEN) == b"\x1b[32mweb.1    |\x1b[0m \x1b[31mred\x1b[0m\n"
    assert cut(b"\x1b[31mred\n", 100) == b"web.1    | \x1b[31mred\n"


def test_what_is_not_out_yet_is_known() -> None:
    """How far a stream has become lines can be said at any moment, in the middle of a line too."""
    lines = PlainLines(MARGIN, "stdout", inside=True, bound_bytes=4)
    assert (fed(lines, b"ab"), lines.inside) == ((b"", b"ab"), True)
    assert (fed(lines, b"ab\nc"), lines.inside) == ((b"web.1    + ab\n", b"c"), False)


def test_what_finds_no_room_comes_once_there_is_some() -> None:
    """However little room there is at a time, no line is lost or doubled."""
    assert fed(PlainLines(MARGIN, "stdout"), b"a\nb\nc", room=14) == (b"web.1    | a\nweb.1    | b\n", b"c")
