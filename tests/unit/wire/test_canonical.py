"""Canonical bytes: one spelling out, and no other spelling in."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from agent.errors import VerificationError
from agent.wire import canonical


class Leaf(Struct, frozen=True, kw_only=True):
    name: str
    size_bytes: int = 0


class Tree(Struct, frozen=True, kw_only=True):
    leaves: tuple[Leaf, ...] = ()
    labels: dict[str, str] = {}
    parent: str | None = None


class Measured(Struct, frozen=True):
    seconds: float


trees = st.builds(
    Tree,
    leaves=st.lists(st.builds(Leaf, name=st.text(), size_bytes=st.integers(0, 2**53)), max_size=3).map(tuple),
    labels=st.dictionaries(st.text(), st.text(), max_size=3),
    parent=st.none() | st.text(),
)


@given(trees)
def test_written_bytes_are_read_back(tree: Tree) -> None:
    """What was written is read as the same value, and written again it is the same bytes."""
    data = canonical.encode(tree)
    assert canonical.decode(data, Tree) == tree
    assert canonical.encode(canonical.decode(data, Tree)) == data


@given(trees)
def test_bytes_are_those_of_another_json_library(tree: Tree) -> None:
    """Sorted keys, no spaces and plain UTF-8 are enough for anybody to write the same bytes."""
    other = json.dumps(msgspec.to_builtins(tree), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical.encode(tree) == other.encode()


REFUSED = {
    "a space": (b'{"labels":{}, "leaves":[],"parent":null}', "canonical form"),
    "a line end": (b'{"labels":{},"leaves":[],"parent":null}\n', "canonical form"),
    "keys in another order": (b'{"leaves":[],"labels":{},"parent":null}', "canonical form"),
    "a key given twice": (b'{"parent":"a","parent":"b"}', "canonical form"),
    "a label given twice": (b'{"labels":{"a":"1","a":"2"}}', "canonical form"),
    "an escape that is not needed": (b'{"parent":"\\u0061"}', "canonical form"),
    "a field nobody knows": (b'{"colour":"red"}', r"unknown field \$\.colour"),
    "a field nobody knows, deep inside": (
        b'{"leaves":[{"name":"a"},{"colour":"red","name":"b"}]}',
        r"unknown field \$\.leaves\[1\]\.colour",
    ),
    "a float where an integer belongs": (b'{"leaves":[{"name":"a","size_bytes":1.0}]}', "Expected `int`"),
    "a text where an integer belongs": (b'{"leaves":[{"name":"a","size_bytes":"1"}]}', "Expected `int`"),
    "bytes that are not UTF-8": (b'{"parent":"\xff"}', "cannot read the tree"),
    "half a surrogate": (b'{"parent":"\\ud800"}', "cannot read the tree"),
    "too deep a nest": (b'{"parent":' + b"[" * 100_000, "cannot read the tree"),
    "nothing": (b"", "cannot read the tree"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_other_spellings_are_refused(data: bytes, reason: str) -> None:
    """Bytes that Rollway would not have written are refused, saying why."""
    with pytest.raises(VerificationError, match=reason):
        canonical.decode(data, Tree)


def test_a_missing_field_takes_its_default() -> None:
    """What an older Rollway wrote, before a field existed, can still be read."""
    assert canonical.decode(b'{"leaves":[{"name":"a"}]}', Tree) == Tree(leaves=(Leaf(name="a"),))


def test_floats_are_not_written() -> None:
    """A float is refused with its place before it gets into anything that is signed."""
    with pytest.raises(TypeError, match=r"\$\.seconds"):
        canonical.encode(Measured(0.5))
