"""The one spelling of a struct as bytes: what is signed, digested or stored must never have a second one.

Rules: JSON, UTF-8, keys sorted, no spaces, no floats (their spelling differs between languages), every field written.
Reading refuses what writing would not have written: another spelling, a key given twice, a field that is not known.
A field that is missing takes its default, so that what an older Rollway wrote can still be read.
"""

import hashlib
from typing import TypeVar

import msgspec
from msgspec import Struct

from agent.errors import VerificationError
from agent.model.ids import Digest

T = TypeVar("T", bound=Struct)

_encoder = msgspec.json.Encoder(order="sorted")


def encode(value: Struct) -> bytes:
    """The canonical bytes of `value`."""
    tree = msgspec.to_builtins(value, str_keys=True)
    path = _float_in(tree, "$")
    if path is not None:
        raise TypeError(f"{type(value).__name__} has a float at {path}: durations and sizes are integers")
    return _encoder.encode(tree)


def decode(data: bytes, kind: type[T]) -> T:
    """The `kind` whose canonical bytes these are; raises VerificationError with what is wrong and where."""
    what = kind.__name__.lower()
    try:
        tree: object = msgspec.json.decode(data)
        value = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise VerificationError(f"cannot read the {what}: {error}", "It was not written by Rollway.") from error
    if _encoder.encode(tree) != data:
        raise VerificationError(
            f"cannot read the {what}: it is not in canonical form (keys sorted and given once, no spaces)",
            "It was changed after it was written, or not written by Rollway.",
        )
    unknown = _unknown_in(tree, msgspec.json.decode(_encoder.encode(value)), "$")
    if unknown is not None:
        raise VerificationError(
            f"cannot read the {what}: unknown field {unknown}", "It was written by a newer Rollway: upgrade this one."
        )
    return value


def digest_of(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def _float_in(tree: object, path: str) -> str | None:
    """Where the first float is."""
    if isinstance(tree, float):
        return path
    branches: list[tuple[str, object]] = []
    if isinstance(tree, dict):
        branches = [(f"{path}.{key}", branch) for key, branch in tree.items()]
    elif isinstance(tree, list | tuple):
        branches = [(f"{path}[{n}]", branch) for n, branch in enumerate(tree)]
    return next((found for at, branch in branches if (found := _float_in(branch, at))), None)


def _unknown_in(tree: object, known: object, path: str) -> str | None:
    """Where the first key is that `tree` has and `known`, the same tree as far as it was understood, has not."""
    branches: list[tuple[str, object, object]] = []
    if isinstance(tree, dict) and isinstance(known, dict):
        for key, branch in tree.items():
            if key not in known:
                return f"{path}.{key}"
            branches.append((f"{path}.{key}", branch, known[key]))
    elif isinstance(tree, list) and isinstance(known, list):
        branches = [
            (f"{path}[{n}]", branch, understood) for n, (branch, understood) in enumerate(zip(tree, known, strict=True))
        ]
    return next((found for at, branch, understood in branches if (found := _unknown_in(branch, understood, at))), None)
