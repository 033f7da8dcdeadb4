"""The error tree: who is to blame, what to answer, what to do; and `invariant`, which is another thing than an error.

Rules: a text reads "cannot X: reason" or names what was found; `what_to_do` is one sentence for the person who sees it;
a class of its own exists only where a caller acts on it. Expected outcomes ("probe failed") are values, not errors.
"""

from typing import ClassVar, NoReturn, TypeVar

E = TypeVar("E", bound=Exception)


class RollwayError(Exception):
    """An error for a person. `exit_code` is the CLI's (0-6), `http_status` the servers'; the tree below sets both."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, error: str, what_to_do: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.what_to_do = what_to_do

    def __str__(self) -> str:
        return f"{self.error}. {self.what_to_do}" if self.what_to_do else self.error


class FailedError(RollwayError):
    """What was asked for was tried and did not work."""


class RolledBackError(RollwayError):
    """The rollout failed and stable was brought back, or was aborted."""

    exit_code = 3


class UsageError(RollwayError):
    """The words of a command, a request or a file are wrong; trying again unchanged gives the same."""

    exit_code = 2
    http_status = 400


class SettingsError(UsageError):
    """A settings file is wrong: in which file, at which key path, what was expected, what was found."""

    def __init__(self, file: str, key: str, expected: str, found: str, line: int | None = None) -> None:
        where = f"{file}:{line}" if line is not None else file
        super().__init__(
            f"{where}: {key}: expected {expected}, found {found}"
            if key
            else f"{where}: expected {expected}, found {found}",
            f"Correct {key or 'the file'} in {file} and run it again.",
        )
        self.file, self.key, self.expected, self.found, self.line = file, key, expected, found, line


class RefusedError(RollwayError):
    """Understood, but not now or not by you: conflict, freeze, promotion rule, permission, wrong state."""

    exit_code = 4
    http_status = 409


class UnauthorizedError(RefusedError):
    """The caller did not show who they are."""

    http_status = 401


class ForbiddenError(RefusedError):
    """The caller is known and may not do this."""

    http_status = 403


class NotFoundError(RollwayError):
    """The named app, environment, release, host or rollout does not exist."""

    exit_code = 5
    http_status = 404


class UnreachableError(RollwayError):
    """No answer from the coordinator or the agent."""

    exit_code = 6
    http_status = 503


class VerificationError(RollwayError):
    """Bytes are not what their digest or signature says, or break a bound. Never trusted, nothing kept of them."""

    http_status = 422


class InvariantBrokenError(Exception):
    """The program is wrong, not its input. Stops one rollout or one swap, never an instance."""


def first(errors: BaseExceptionGroup[E]) -> E:
    """One of what went wrong at once, in however many groups it came."""
    found = errors.exceptions[0]
    return first(found) if isinstance(found, BaseExceptionGroup) else found


def invariant(condition: bool, why: str) -> None:  # noqa: FBT001 - reads as a sentence at every call
    """Raise `InvariantBrokenError(why)` unless `condition`; unlike `assert` it is not stripped by `python -O`."""
    if not condition:
        raise InvariantBrokenError(why)


def unreachable(what: object) -> NoReturn:
    """Mark a branch that cannot be taken; `what` is shown if it is taken all the same."""
    raise InvariantBrokenError(f"reached the unreachable: {what!r}")
