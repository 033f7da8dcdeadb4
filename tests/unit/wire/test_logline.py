"""What a line of an instance becomes, however its bytes arrive."""

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.logline import LogLines, Source

SOURCE = Source(
    app="shop", env="production", release="v1.2.3", process="web", instance="web.1", pid=71, stream="stdout"
)
TS = "2025-12-09T10:30:00.123Z"
WHO = {"ts": TS} | {name: getattr(SOURCE, name) for name in SOURCE.__struct_fields__}
CUTS = {"whole": 1 << 30, "byte by byte": 1, "three bytes at a time": 3}

LINES: dict[str, tuple[bytes, list[dict[str, object]]]] = {
    "a plain line": (b"GET / 200\n", [{"message": "GET / 200"}]),
    "two lines at once": (b"a\nb\n", [{"message": "a"}, {"message": "b"}]),
    "an empty line": (b"\n", [{"message": ""}]),
    "carriage return, quotes and a backslash stay": (b'say "hi" \\ \r\n', [{"message": 'say "hi" \\ \r'}]),
    "text in UTF-8": ("größer ☃\n".encode(), [{"message": "größer ☃"}]),
    "NULs": (b"a\0b\n", [{"message": "a\0b"}]),
    "bytes that are no UTF-8 are shown and marked": (
        b"a\xff\n",
        [{"message": "a\\xff", "invalid_utf8": True}],
    ),
    "a JSON object keeps its fields": (b'{"level":"info","n":1.50}\n', [{"level": "info", "n": 1.5}]),
    "a JSON object with spaces around": (b'  {"a": null} \n', [{"a": None}]),
    "an empty JSON object": (b"{}\n", [{}]),
    "a field of our name is kept under another": (
        b'{"ts":1,"app":"x","app_ts":2}\n',
        [{"app_app_ts": 1, "app_app": "x", "app_ts": 2}],
    ),
    "a JSON array is text": (b"[1]\n", [{"message": "[1]"}]),
    "half a JSON object is text": (b'{"a":1\n', [{"message": '{"a":1'}]),
    "two JSON objects are text": (b"{}{}\n", [{"message": "{}{}"}]),
    "two JSON objects of which one has a field of ours are text": (
        b'{"a":1}{"ts":1}\n',
        [{"message": '{"a":1}{"ts":1}'}],
    ),
    "a JSON object that is no UTF-8 is text": (
        b'{"a":"\xff"}\n',
        [{"message": '{"a":"\\xff"}', "invalid_utf8": True}],
    ),
    "what only together would be an object a line is text": (
        b'{"a":\n{"b":1}}\n{"c":1}{"d":1}\n',
        [{"message": '{"a":'}, {"message": '{"b":1}}'}, {"message": '{"c":1}{"d":1}'}],
    ),
    "an object among text, text among objects": (
        b'a\n{"b":1}\n{"c":1}\n{"d":1\n',
        [{"message": "a"}, {"b": 1}, {"c": 1}, {"message": '{"d":1'}],
    ),
    "a delete character stays": (b"a\x7f\nb\n", [{"message": "a\x7f"}, {"message": "b"}]),
    "the end without a newline is marked": (
        b"a\nlast words",
        [{"message": "a"}, {"message": "last words", "partial": True}],
    ),
}


def records(data: bytes, cut: int, bound_bytes: int = 64 * 1024) -> list[dict[str, object]]:
    lines = LogLines(SOURCE, bound_bytes)
    out, rest = fed(lines, data, cut)
    out += lines.end(rest, TS)
    assert not out or out.endswith(b"\n")
    return [json.loads(record, object_pairs_hook=no_name_twice) for record in out.splitlines()]


def fed(lines: LogLines, data: bytes, cut: int = 1 << 30, room: int = 512 * 1024) -> tuple[bytes, bytes]:
    """The records of data that comes in pieces, each fed as often as there is no room; and what is in none."""
    records, left = b"", bytearray()
    out = memoryview(bytearray(room))
    for start in range(0, len(data), cut):
        left += data[start : start + cut]
        is_full = True
        while is_full:
            used, made, is_full = lines.feed(memoryview(left), TS, out)
            assert made or not is_full, "a record that finds no room in an empty place stays for ever"
            records += out[:made]
            left = left[used:]
    return records, bytes(left)


def no_name_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("data", "expected"), LINES.values(), ids=LINES)
def test_each_line_becomes_a_record(data: bytes, expected: list[dict[str, object]], cut: int) -> None:
    """A line becomes one JSON object that says who wrote it and when, whole or in pieces."""
    assert records(data, cut) == [WHO | one for one in expected]


@given(st.binary(max_size=400).map(lambda data: data.translate(None, b"{\\")), st.integers(1, 400), st.integers(5, 40))
def test_no_byte_is_lost(data: bytes, cut: int, bound_bytes: int) -> None:
    """The messages put together again, with a newline where none is marked missing, are what the app wrote."""
    assert b"".join(map(written, records(data, cut, bound_bytes))) == data


PARTS = (
    b"\n", b"\n", b"\n", b"x", b" ", b"\t", b"\r", b"\x7f", b"\xff", "ö".encode(), b'"', b"\\", b"\\n", b"{", b"}",
    b"}\n{", b"{}", b"{ }", b'{"a":1}', b'{"a":1}\n', b'{"b":{}}\n', b'{"a":', b'{"a":\n', b'{"ts":1}', b'{"a":"\xff"}',
    b'{"\\u0074s":1}\n', b'{"a":[{"b":1},\n{"c":1}]}\n', b'"}\n{"', b'{"a":"\x01"}\n', b'{"c":1}{"d":1}\n',
)  # fmt: skip


@given(
    st.lists(st.tuples(st.lists(st.sampled_from(PARTS), max_size=6).map(b"".join), st.sampled_from((1, 1, 1, 2, 600)))),
    st.integers(5, 40),
)
def test_many_lines_at_once_give_the_records_of_each(runs: list[tuple[bytes, int]], bound_bytes: int) -> None:
    """Whether an app's lines come in one large chunk or byte by byte, their records are the same to the byte."""
    data = b"".join(lines * count for lines, count in runs)[:20_000]
    for bound in (bound_bytes, 64 * 1024):
        whole, slow = LogLines(SOURCE, bound), LogLines(SOURCE, bound)
        assert fed(whole, data) == fed(slow, data, cut=1)
        assert whole.inside == slow.inside


@given(st.lists(st.sampled_from(PARTS), max_size=60).map(b"".join), st.integers(800, 2_000))
def test_records_come_as_there_is_room_for_them(data: bytes, room: int) -> None:
    """Where they find room for a few at a time only, records are the same to the byte."""
    assert fed(LogLines(SOURCE, 100), data, room=room) == fed(LogLines(SOURCE, 100), data)


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n{")) | st.text('\x01"\\ö☃💣ab', min_size=14)))
def test_text_is_escaped_as_a_json_encoder_does(texts: list[str]) -> None:
    """Whatever characters there are, and wherever they stand: what is fast says the same as what is not."""
    data = "".join(f"{text}\n" for text in texts).encode(errors="replace")
    messages = [text.encode(errors="replace") for text in texts]
    heads = [record.partition(b',"message":')[2] for record in fed(LogLines(SOURCE), data)[0].splitlines()]
    assert heads == [msgspec.json.encode(message.decode()) + b"}" for message in messages]


def written(record: dict[str, object]) -> bytes:
    message = str(record["message"]).encode()
    if "invalid_utf8" in record:
        message = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), message)
    return message if "partial" in record else message + b"\n"


@given(
    st.text(alphabet=st.characters(exclude_characters="\n{", exclude_categories=["Cs"]), max_size=200),
    st.integers(5, 40),
)
def test_a_long_line_comes_in_parts_that_tear_no_character(text: str, bound_bytes: int) -> None:
    """Every part but the last is marked, none is longer than the bound, and the text is whole when they are joined."""
    found = records(text.encode() + b"\n", 1 << 30, bound_bytes)
    assert "".join(str(record["message"]) for record in found) == text
    assert [record.get("partial", False) for record in found] == [True] * (len(found) - 1) + [False]
    assert all(len(str(record["message"]).encode()) <= bound_bytes for record in found)
    assert not any("invalid_utf8" in record for record in found)


def test_the_rest_of_a_long_line_is_not_taken_for_json() -> None:
    """A JSON object behind the cut of a long line is text, as its beginning was."""
    assert [record["message"] for record in records(b"x" * 10 + b'{"a":1}\nnext\n', 1 << 30, bound_bytes=10)] == [
        "x" * 10,
        '{"a":1}',
        "next",
    ]


def test_a_long_line_goes_on_where_an_earlier_agent_left_it() -> None:
    """Who takes up a stream inside a line takes its rest for text, and the next line for what it is."""
    lines = LogLines(SOURCE, inside=True)
    found = [json.loads(record) for record in fed(lines, b'{"a":1}\n{"b":1}\n')[0].splitlines()]
    assert found == [WHO | {"message": '{"a":1}'}, WHO | {"b": 1}]
    assert not lines.inside


def test_an_object_nested_beyond_reason_is_one_record() -> None:
    """Nobody can end the agent with a deep line."""
    deep = b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"\n"
    assert fed(LogLines(SOURCE), deep)[0].count(b"\n") == 1
