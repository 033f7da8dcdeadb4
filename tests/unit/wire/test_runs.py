"""Words and chunks about one command, and what is none."""

import pytest

from agent.errors import NotFoundError, VerificationError
from agent.model.ids import ReleaseName
from agent.wire.runs import (
    CHUNK_BYTES,
    STDERR,
    STDIN,
    STDOUT,
    Ask,
    Chunk,
    Ended,
    Frame,
    FromCaller,
    FromHost,
    Refused,
    Resized,
    Signalled,
    Size,
    Started,
    Took,
    encode,
    from_caller,
    from_host,
)

OF_CALLERS: tuple[FromCaller | Chunk, ...] = (
    Ask(order="{}", size=Size(24, 80), term="xterm-256color", stdin=True),
    Resized(size=Size(1, 10_000)),
    Signalled(signal="SIGINT"),
    Took(stream=STDERR),
    Chunk(STDIN, bytes(range(256))),
    Chunk(STDIN, b""),
)
OF_HOSTS: tuple[FromHost | Chunk, ...] = (
    Started(instance="run.1", pid=7, release=ReleaseName("v1")),
    Ended(code=0),
    Ended(signal=9, reason="the host is drained"),
    Refused.of(NotFoundError("no such", "See there.")),
    Took(stream=STDIN),
    Chunk(STDOUT, b"x" * CHUNK_BYTES),
    Chunk(STDERR, b"\0"),
)


@pytest.mark.parametrize("word", OF_CALLERS, ids=lambda word: type(word).__name__)
def test_what_a_caller_says_arrives(word: FromCaller | Chunk) -> None:
    """Words as text, bytes as they are."""
    assert from_caller(encode(word)) == word


@pytest.mark.parametrize("word", OF_HOSTS, ids=lambda word: type(word).__name__)
def test_what_a_host_says_arrives(word: FromHost | Chunk) -> None:
    """Words as text, bytes as they are; an error with the exit code that it stands for."""
    assert from_host(encode(word)) == word


def test_what_is_added_one_day_is_passed_over() -> None:
    """A newer end may say more in a word that is known."""
    assert from_host('{"type":"ended","code":3,"colour":"red"}') == Ended(code=3)


NEITHER: dict[str, Frame] = {
    "no word": "",
    "no JSON": "{",
    "a word of nobody": '{"type":"hello"}',
    "a window without a column": '{"type":"resized","size":{"rows":1,"columns":0}}',
    "a signal that nobody may send": '{"type":"signalled","signal":"SIGKILL"}',
    "a terminal with a name that ends a line": '{"type":"ask","order":"{}","term":"x\\ny"}',
    "a stream without a number": b"",
    "a stream that there is not": b"\x03abc",
    "more than a chunk": b"\x00" + b"x" * (CHUNK_BYTES + 1),
    "depth without end": "[" * 100_000,
}


@pytest.mark.parametrize("frame", NEITHER.values(), ids=NEITHER)
def test_what_is_neither_is_refused(frame: Frame) -> None:
    """By both ends, whatever it is."""
    for read in (from_caller, from_host):
        with pytest.raises(VerificationError):
            read(frame)


def test_an_end_does_not_speak_for_the_other() -> None:
    """A caller gives no output, and a host no input; nor does one say the other's words."""
    for of_a_host in (*OF_HOSTS[:4], Chunk(STDOUT, b"x")):
        with pytest.raises(VerificationError):
            from_caller(encode(of_a_host))
    for of_a_caller in (*OF_CALLERS[:3], Chunk(STDIN, b"x")):
        with pytest.raises(VerificationError):
            from_host(encode(of_a_caller))
