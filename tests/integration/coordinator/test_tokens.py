"""Who is admitted by what they show."""

import pytest

from agent.coordinator.tokens import Tokens
from agent.errors import UnauthorizedError

STRANGE = {
    "nothing": "",
    "another scheme": "Basic Zm9v",
    "an empty token": "Bearer ",
    "letters beyond ASCII": "Bearer t\N{LATIN SMALL LETTER E WITH ACUTE}",
    "bytes that are no text": b"Bearer \xe9\xff".decode(errors="surrogateescape"),
}


@pytest.mark.parametrize("authorization", STRANGE.values(), ids=STRANGE)
def test_whatever_is_shown_is_answered(authorization: str) -> None:
    """A header that no token could be in is refused like any unknown token, not an error of the server."""
    with pytest.raises(UnauthorizedError):
        Tokens(()).admit(authorization, "viewer")
