"""The line of a key: right or not given."""

import tomli
from hypothesis import given
from hypothesis import strategies as st

from agent.settings.lines import key_lines

TEXT = '''\
# comment = 1
a = 1   # b = 2
"c d" = [
  "x = 1",
  "[e]",
]
f.g = """
h = 1
[i]
"""

[j.k]
l = { m = 1, n = { o = 2 } }
[j]
p = 'q'
[[r]]
s = 1
[t]
u = 1
'''


def test_each_key_has_the_line_that_a_reader_would_point_at() -> None:
    """Strings and lists over several lines, comments and nested tables lead to no other line."""
    lines = key_lines(TEXT)
    assert lines == {
        ("a",): 2,
        ("c d",): 3,
        ("f",): 7,
        ("j",): 14,
        ("j", "k"): 12,
        ("j", "k", "l"): 13,
        ("j", "k", "l", "m"): 13,
        ("j", "k", "l", "n"): 13,
        ("j", "k", "l", "n", "o"): 13,
        ("j", "p"): 15,
        ("r",): 16,
        ("t",): 18,
        ("t", "u"): 19,
    }


def test_lines_of_a_windows_file_are_those_an_editor_shows() -> None:
    """A carriage return before a line's end changes nothing."""
    assert key_lines(TEXT.replace("\n", "\r\n")) == key_lines(TEXT)


def test_after_a_statement_too_long_to_follow_no_line_is_guessed() -> None:
    """A list of thousands of lines costs its successors their line, not the reader a wrong one."""
    text = "a = 1\nb = [\n" + "1,\n" * 5_000 + "]\nc = 2\n"
    assert key_lines(text) == {("a",): 1}


MULTILINE = ['{} = """\n{} = 1\n"""', "{} = [ # {}\n1,\n\n]", "{} = '''\n[{}]\n'''", "{} = 1 # {}", '{} = "{}"']


@given(st.lists(st.tuples(st.sampled_from(MULTILINE), st.sampled_from("abc"), st.integers(0, 2)), max_size=12))
def test_a_line_that_is_given_begins_with_its_key(statements: list[tuple[str, str, int]]) -> None:
    """However keys, comments, strings and headers follow each other, a given line is where the key is written."""
    text = "".join(
        "\n" * blank + (f"[t{place}]\n" if blank else "") + shape.format(f"k{place}", name) + "\n"
        for place, (shape, name, blank) in enumerate(statements)
    )
    tomli.loads(text)
    lines = key_lines(text)
    written = text.split("\n")
    assert len([path for path in lines if str(path[-1]).startswith("k")]) == len(statements)
    for path, line in lines.items():
        assert written[line - 1].lstrip("[").startswith(str(path[-1]))
