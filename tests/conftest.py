"""What every test shares: each async test runs on plain asyncio and on uvloop, for an agent may run on either."""

import pytest

LOOPS = {"asyncio": False, "uvloop": True}


@pytest.fixture(scope="session", params=LOOPS.values(), ids=list(LOOPS))
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loops of the tests marked `anyio`; of session scope, so that async fixtures of any scope can use them."""
    return "asyncio", {"use_uvloop": request.param}
