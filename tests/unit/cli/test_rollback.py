"""Where `rollway rollback` leads when no release is named."""

import pytest

from agent.cli.rollback import target
from agent.client.answers import State
from agent.errors import FailedError
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName

SHOP, LOCAL = AppName("shop"), EnvironmentName("local")
V1, V2 = (ReleaseRef(name=ReleaseName(name), digest=Digest(f"sha256:{name}")) for name in ("v1", "v2"))


def test_it_leads_one_release_back_and_says_where_that_ends() -> None:
    """From v2 to v1; at v1 it is said that this is the oldest healthy release, and how to go on."""
    assert target(State(runs=V2, stable=(V1, V2), sequence=2), SHOP, LOCAL) == "v1"
    with pytest.raises(FailedError, match="v1 is the oldest healthy release of shop in local") as raised:
        target(State(runs=V1, stable=(V1,), sequence=3), SHOP, LOCAL)
    assert (raised.value.exit_code, "rollway swap shop local" in raised.value.what_to_do) == (1, True)
