"""Where a command that somebody runs once is run, and in which release."""

import pytest
from msgspec.structs import replace

from agent.decisions.runs import Candidate, choose, disturbed, release_there
from agent.model.assignment import AppReport
from agent.model.ids import AppName, EnvironmentName, HostName, ReleaseName

V1, V2 = ReleaseName("v1"), ReleaseName("v2")
REPORT = AppReport(app=AppName("shop"), environment=EnvironmentName("local"), generation=1, release=V1, state="done")
WELL = Candidate(host=HostName("h1"), connected=True, runs_commands=True, report=REPORT)

DISTURBED = {
    "is not connected": replace(WELL, connected=False),
    "has an older agent, which does not know how": replace(WELL, runs_commands=False),
    "has not said yet what it runs": replace(WELL, report=None),
    "is pinned": replace(WELL, report=replace(REPORT, aside="pinned")),
    "runs v2": replace(WELL, report=replace(REPORT, release=V2)),
    "runs nothing": replace(WELL, report=replace(REPORT, release=None)),
    "is swapping": replace(WELL, report=replace(REPORT, state="swapping")),
}


def test_the_first_that_is_as_it_is_to_be() -> None:
    """Hosts that are in the middle of something are passed over, each with a reason; where all are, there is none."""
    others = [replace(candidate, host=HostName("h2")) for candidate in DISTURBED.values()]
    assert choose([*others, WELL, replace(WELL, host=HostName("h3"))], V1) == "h1"
    assert choose(others, V1) is None


@pytest.mark.parametrize(("why", "candidate"), DISTURBED.items(), ids=DISTURBED)
def test_why_a_host_is_not_chosen(why: str, candidate: Candidate) -> None:
    """It is said in words."""
    assert (disturbed(candidate, V1), disturbed(WELL, V1)) == (why, "")


def test_a_host_that_is_named_is_taken_as_it_is() -> None:
    """With what it runs, by a person's hand too; between two releases, and unknown, with the environment's."""
    assert release_there(REPORT, V2) == V1
    assert release_there(replace(REPORT, state="settling", aside="pinned"), V2) == V1
    assert release_there(replace(REPORT, state="swapping"), V2) == V2
    assert release_there(replace(REPORT, release=None), V2) == V2
    assert release_there(None, V2) == V2
