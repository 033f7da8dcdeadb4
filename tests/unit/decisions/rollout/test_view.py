"""What people are shown of a rollout."""

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from agent.decisions.rollout import view
from agent.decisions.rollout.begin import plan
from agent.model.environment import EnvironmentSettings
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ReleaseName, RolloutId
from agent.model.process import AppSpec
from agent.model.release import Order, OrderKind
from agent.model.rollout import HostStep, Rollout, RolloutState

NOON = 1_795_435_200_000
"""2026-11-23 12:00:00Z"""


def rollout(
    *steps: HostStep, state: RolloutState = "running", kind: OrderKind = "swap", first: bool = False, reason: str = ""
) -> Rollout:
    order = Order(
        kind=kind,
        app=AppName("shop"),
        environment=EnvironmentName("production"),
        release=ReleaseName("v2"),
        release_digest=Digest("sha256:2"),
        replaces=None if first else ReleaseName("v1"),
        replaces_digest=None if first else Digest("sha256:1"),
        sequence=3,
    )
    planned = plan(
        rollout_id=RolloutId("r3"),
        order=order,
        envelope="",
        settings=EnvironmentSettings(),
        spec=AppSpec(app=order.app, processes=()),
        hosts=steps,
        first_generation=1,
        asked_by="ada",
        now_ms=NOON,
    )
    return replace(planned, state=state, reason=reason)


def host(name: str = "h1", **fields: object) -> HostStep:
    return HostStep(**{"host": HostName(name), "generation": 1, "since_ms": NOON, **fields})  # type: ignore[arg-type]


def away(name: str = "h1", **fields: object) -> HostStep:
    return host(name, reachable=False, away_since_ms=NOON - 33_000, **fields)


LATER = NOON - 600_000
HOSTS: dict[str, tuple[Rollout, tuple[str, str | None, str]]] = {
    "nothing told yet": (rollout(host(generation=0), state="planned"), ("waiting", None, "")),
    "running stable well is not done": (rollout(host(state="done"), state="preflight"), ("fetching", "v1", "")),
    "laid ready": (rollout(host(state="done", prepared=True), state="preflight"), ("waiting", "v1", "")),
    "not laid ready, and never to be": (rollout(host(state="done"), state="failed"), ("waiting", "v1", "")),
    "cannot be laid ready": (
        rollout(host(unprepared="v2: the disk is full"), state="failed"),
        ("failed", "v1", "cannot prepare v2: the disk is full"),
    ),
    "a rollback fetches nothing": (rollout(host(generation=0), kind="rollback"), ("waiting", None, "")),
    "a first deploy": (rollout(host(prepared=True), first=True), ("waiting", None, "")),
    "moved": (rollout(host(moved=True, state="settling")), ("settling", "v2", "")),
    "failed": (
        rollout(host(moved=True, state="failed", reason="web.1 keeps crashing")),
        ("failed", "v2", "web.1 keeps crashing"),
    ),
    "brought back": (rollout(host(moved=True, back=True, state="done"), state="rolled_back"), ("done", "v1", "")),
    "away": (
        rollout(away(), state="preflight"),
        ("unreachable", "v1", "away since 11:59:27Z; waited for until 12:05:00Z"),
    ),
    "away since yesterday": (
        rollout(host(reachable=False, away_since_ms=NOON - 86_400_000), state="preflight"),
        ("unreachable", "v1", "away since 2026-11-22 12:00:00Z; waited for until 12:05:00Z"),
    ),
    "away too long": (rollout(away(since_ms=LATER)), ("unreachable", "v1", "away since 11:59:27Z; left behind")),
    "away, and not needed": (rollout(away(), state="rolling_back"), ("unreachable", "v1", "away since 11:59:27Z")),
    "away, and it is over": (rollout(away(), state="done"), ("unreachable", "v1", "away since 11:59:27Z")),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "expected"), HOSTS.values(), ids=HOSTS)
def test_a_host_in_a_word(seen: Rollout, expected: tuple[str, str | None, str]) -> None:
    """A host is shown by where it is in this rollout, with what it was told to run, and why."""
    (step,) = seen.hosts
    told = view.told(seen, step)
    assert (view.word(seen, step), told and told.name, view.reason(seen, step)) == expected


WHY: dict[str, tuple[Rollout, str]] = {
    "its own reason comes first": (rollout(away(), state="paused", reason="paused by ada"), "paused by ada"),
    "nobody is away": (rollout(host(), state="preflight"), ""),
    "the release must reach a host that is away": (
        rollout(host(prepared=True), away("h2"), state="preflight"),
        "waiting for h2: away since 11:59:27Z; waited for until 12:05:00Z",
    ),
    "it lies there already": (rollout(away(prepared=True), state="preflight"), ""),
    "another one moves meanwhile": (rollout(host(moved=True, state="swapping"), away("h2")), ""),
    "all others are done": (
        rollout(host(moved=True, state="done"), away("h2"), away("h3", since_ms=NOON + 1_000)),
        "waiting for h2, h3: away since 11:59:27Z; waited for until 12:05:01Z",
    ),
    "it was away too long": (rollout(host(moved=True, state="done"), away("h2", since_ms=LATER)), ""),
}


@pytest.mark.parametrize(("seen", "expected"), WHY.values(), ids=WHY)
def test_why_nothing_moves(seen: Rollout, expected: str) -> None:
    """A rollout that waits for hosts says for which, since when they are away, and how long it waits."""
    assert view.why(seen) == expected


def steps(*of: HostStep) -> Iterable[HostStep]:
    return (replace(step, host=HostName(f"h{number}")) for number, step in enumerate(of))


def test_how_far_it_is() -> None:
    """Forward every host counts; on the way back only those that have to go back."""
    moved, arrived, still = host(moved=True, state="swapping"), host(moved=True, state="done"), host(state="done")
    forward = rollout(*steps(arrived, moved, still))
    assert view.progress(forward) == (1, 3)
    back = rollout(*steps(arrived, replace(arrived, back=True), still), state="rolling_back")
    assert view.progress(back) == (1, 2)


STEADY = {
    "all are ready": ((2, 2, ()), "stable"),
    "one is not": ((1, 2, ()), "degraded"),
    "nothing is known of a host": ((2, 2, (HostName("h2"),)), "unknown"),
    "nothing is known of any host": ((0, 0, (HostName("h1"),)), "unknown"),
    "one is not, and nothing is known of a host": ((1, 2, (HostName("h2"),)), "degraded"),
}


@pytest.mark.parametrize(("seen", "expected"), STEADY.values(), ids=STEADY)
def test_unknown_is_not_down(seen: tuple[int, int, tuple[HostName, ...]], expected: str) -> None:
    """Degraded is what is known to lack; a host that is away is not known to lack anything."""
    assert view.steady(*seen) == expected
