"""An answer that says no, as the error that its exit code stands for: of a coordinator or of an agent alike."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from agent.errors import (
    FailedError,
    NotFoundError,
    RefusedError,
    RolledBackError,
    RollwayError,
    UnreachableError,
    UsageError,
)

_BY_CODE: Final[Mapping[int, type[RollwayError]]] = {
    error.exit_code: error
    for error in (FailedError, UsageError, RolledBackError, RefusedError, NotFoundError, UnreachableError)
}


class _Error(Struct):
    error: str
    what_to_do: str = ""
    code: int = 1


def refusal(status: int, answer: bytes, role: str) -> RollwayError:
    """The error in the body of an answer that is not well."""
    try:
        found = msgspec.json.decode(answer, type=_Error)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return FailedError(
            f"the {role} answered {status} {answer[:200].decode(errors='replace')!r}",
            f"Look whether this is the address of a Rollway {role}.",
        )
    return error_of(found.code, found.error, found.what_to_do)


def error_of(code: int, error: str, what_to_do: str) -> RollwayError:
    """The error that an exit code stands for."""
    return _BY_CODE.get(code, FailedError)(error, what_to_do)
