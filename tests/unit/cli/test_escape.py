"""The way out of a terminal whose every key is a command's."""

import pytest

from agent.cli.escape import Escape

TYPED = {
    "at the very beginning": (b"~.", b"", True),
    "on a new line": (b"ls\r~.", b"ls\r", True),
    "behind a line feed too": (b"ls\n~.more", b"ls\n", True),
    "not in the middle of a line": (b"cd ~.", b"cd ~.", False),
    "two tildes are one, and lead nowhere": (b"~~.", b"~.", False),
    "before anything else it is itself": (b"~/bin\r~", b"~/bin\r", False),
    "every other byte is itself": (bytes(range(256)), bytes(range(256)), False),
}


@pytest.mark.parametrize(("typed", "passed", "left"), TYPED.values(), ids=TYPED)
@pytest.mark.parametrize("size", [1, 1_000])
def test_a_tilde_and_a_dot_leave_from_a_new_line(typed: bytes, passed: bytes, size: int, *, left: bool) -> None:
    """As ssh has it, in how many pieces ever it is typed; what comes behind is for nobody."""
    escape, got = Escape(), b""
    for start in range(0, len(typed), size):
        if not escape.left:
            got += escape.pass_on(typed[start : start + size])
    assert (got, escape.left) == (passed, left)
