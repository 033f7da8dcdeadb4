"""What every test shares: each async test runs on plain asyncio and on uvloop, for an agent may run on either."""

import os
import resource
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Builds ask `python3` for pip, which not every host's own has; that of the environment does.
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

# An agent that dies in a test leaves its descriptors to this very process: a thousand may be too few for all of them.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

# A shell has Ctrl-C ignored in what it starts with `&`; what a test starts and ends by it does not inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("rollway", deadline=None)
settings.load_profile("rollway")

LOOPS = {"asyncio": False, "uvloop": True}


@pytest.fixture(scope="session", params=LOOPS.values(), ids=list(LOOPS))
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loops of the tests marked `anyio`; of session scope, so that async fixtures of any scope can use them."""
    return "asyncio", {"use_uvloop": request.param}
