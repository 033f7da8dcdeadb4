"""Which releases an environment can go back to, as rollouts end."""

import pytest
from msgspec.structs import replace

from agent.decisions.rollout import stable
from agent.decisions.rollout.state import Ended
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName
from agent.model.release import OrderKind
from agent.model.rollout import RolloutState


def stack(names: str) -> stable.Stack:
    return tuple(ReleaseRef(name=ReleaseName(name), digest=Digest(f"sha256:{name}")) for name in names.split())


def ended(state: RolloutState, runs: str) -> Ended:
    return Ended(state=state, runs=stack(runs)[0] if runs else None, healthy=state == "done")


ENDS: dict[str, tuple[str, OrderKind, Ended, str]] = {
    "a first deploy": ("", "swap", ended("done", "v1"), "v1"),
    "a swap": ("v1", "swap", ended("done", "v2"), "v1 v2"),
    "a swap that was brought back": ("v1", "swap", ended("rolled_back", "v1"), "v1"),
    "a swap aborted at its first deploy": ("", "swap", ended("aborted", ""), ""),
    "a swap to an older release": ("v1 v2 v3", "swap", ended("done", "v2"), "v1 v3 v2"),
    "a swap that ended without being healthy": ("v1", "swap", replace(ended("done", "v2"), healthy=False), "v1"),
    "a rollback by one": ("v1 v2 v3", "rollback", ended("done", "v2"), "v1 v2"),
    "a rollback by two": ("v1 v2 v3", "rollback", ended("done", "v1"), "v1"),
    "a rollback to a release no longer on the stack": ("v3", "rollback", ended("done", "v1"), "v3 v1"),
    "a rollback that failed": ("v1 v2", "rollback", ended("failed", "v2"), "v1 v2"),
}


@pytest.mark.parametrize(("before", "kind", "end", "after"), ENDS.values(), ids=ENDS)
def test_the_stack_after_a_rollout(before: str, kind: OrderKind, end: Ended, after: str) -> None:
    """A swap that is healthy to its end can be gone back to; going back forgets what lay above."""
    assert stable.after(stack(before), kind, end) == stack(after)


TARGETS = {
    "from stable to the one before": ("v1 v2", "v2", "v1"),
    "from a release that never was healthy to the newest": ("v1 v2", "v3", "v2"),
    "from the only one nowhere": ("v1", "v1", ""),
    "from nothing to the newest": ("v1", "", "v1"),
    "where nothing was healthy nowhere": ("", "v1", ""),
}


@pytest.mark.parametrize(("before", "runs", "expected"), TARGETS.values(), ids=TARGETS)
def test_where_a_rollback_leads(before: str, runs: str, expected: str) -> None:
    """A rollback leads to the last release that was healthy before what runs."""
    found = stable.target(stack(before), stack(runs)[0] if runs else None)
    assert found == (stack(expected)[0] if expected else None)


def test_a_rollback_that_leads_nowhere_says_why() -> None:
    """At the oldest healthy release nobody is told that none ever was, and the way on is named."""
    app, environment, (v1,) = AppName("shop"), EnvironmentName("local"), stack("v1")
    oldest = stable.dead_end(app, environment, stack("v1"), v1)
    assert oldest.error == "v1 is the oldest healthy release of shop in local: there is nothing to go back to"
    assert "rollway swap shop local" in oldest.what_to_do
    assert oldest.exit_code == 1
    never = stable.dead_end(app, environment, (), v1)
    assert never.error == "nothing to roll back to: no release of shop was ever healthy in local"


def test_the_stack_is_bounded() -> None:
    """A year of deploys does not make every answer longer."""
    kept: stable.Stack = ()
    for number in range(stable.DEPTH_MAX + 5):
        kept = stable.after(kept, "swap", Ended(state="done", runs=stack(f"v{number}")[0], healthy=True))
    assert len(kept) == stable.DEPTH_MAX
    assert kept[-1] == stack(f"v{stable.DEPTH_MAX + 4}")[0]
