"""What hosts are given for new counts, and how it is told how far they are."""

import pytest
from msgspec.structs import replace

from agent.decisions.rollout import scale
from agent.decisions.rollout.hosts import AWAY_MS_MIN
from agent.model.assignment import AppReport, Assignment, HostState, InstanceReport, ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName
from agent.model.process import AppSpec, ProcessType

H1, H2, H3 = (HostName(f"h{number}") for number in (1, 2, 3))
WEB, WORKER = ProcessName("web"), ProcessName("worker")
DECLARED = {WEB: 2, WORKER: 1}
HELD = Assignment(
    app=AppName("shop"),
    environment=EnvironmentName("local"),
    epoch=1,
    generation=7,
    release=ReleaseRef(name=ReleaseName("v1"), digest=Digest("sha256:v1")),
    order="the order",
    counts={WORKER: 3},
    min_ready_ms=0,
    deadline_ms=1_000,
)


def report(generation: int, state: HostState, ready: int = 0, aside: str = "") -> AppReport:
    instances = tuple(
        InstanceReport(process=WEB, slot=slot, release=ReleaseName("v1"), state="ready", pid=1, since_ms=0, restarts=0)
        for slot in range(1, ready + 1)
    )
    return AppReport(
        app=HELD.app,
        environment=HELD.environment,
        generation=generation,
        release=ReleaseName("v1"),
        state=state,
        reason="web.3 keeps crashing" if state == "failed" else "",
        instances=instances,
        aside=aside,
    )


def test_what_counts_in_the_whole_environment_has_no_count_on_each_host() -> None:
    """Nobody is shown a count of a singleton, or of a total, that no host has."""
    clock = ProcessType(name=ProcessName("clock"), command="x", swap="stop-first", singleton=True)
    workers = ProcessType(name=WORKER, command="x", total=4)
    spec = AppSpec(app=HELD.app, processes=(ProcessType(name=WEB, command="x", count=2), clock, workers))
    assert scale.per_host(spec) == {WEB: 2}


def test_only_counts_change_and_only_where_they_are_others() -> None:
    """A host keeps its release, its order and the counts that were not named; one that has them is left alone."""
    held = {H1: HELD, H2: replace(HELD, counts={WEB: 4}), H3: replace(HELD, release=None)}
    given = scale.scaled(held, (H1, H2, H3, HostName("h4")), {WEB: 4}, DECLARED)
    assert given == {H1: replace(HELD, generation=8, counts={WORKER: 3, WEB: 4})}
    assert scale.scaled({H1: HELD}, (H1,), {WEB: 2, WORKER: 3}, DECLARED) == {}


WORDS = {
    "it was told and has not answered": (report(6, "done"), None, "waiting", True),
    "it is on its way": (report(7, "swapping"), None, "scaling", True),
    "what is fresh has to stay ready": (report(7, "settling"), None, "scaling", True),
    "it is there": (report(7, "done", ready=2), None, "done", False),
    "it runs something newer": (report(8, "done"), None, "done", False),
    "it cannot": (report(7, "failed"), None, "failed", False),
    "a person has pinned a release": (report(7, "done", aside="pinned"), None, "pinned", False),
    "a person has drained it": (report(7, "done", aside="drained"), None, "drained", False),
    "it has connected just now": (None, None, "waiting", True),
    "it may be back in a moment": (None, AWAY_MS_MIN - 1, "unreachable", True),
    "it is away": (None, AWAY_MS_MIN, "unreachable", False),
}


@pytest.mark.parametrize(("said", "away_ms", "word", "waited_for"), WORDS.values(), ids=WORDS)
def test_each_host_in_a_word(said: AppReport | None, away_ms: int | None, word: str, *, waited_for: bool) -> None:
    """Whoever is on the way is waited for; who is away for long, failed or was set aside is not."""
    found = scale.look(H1, HELD, said, DECLARED, away_ms)
    assert (found.state, found.waited_for, found.wanted) == (word, waited_for, {WEB: 2, WORKER: 3})
    assert found.reason == ("web.3 keeps crashing" if word == "failed" else "")
    assert not found.ready or found.ready == {WEB: len(said.instances) if said else 0, WORKER: 0}


def test_a_failure_is_told_when_all_others_have_arrived() -> None:
    """The fleet is on its way as long as one host is; then it has failed, or is done."""
    done, failed = (scale.look(H1, HELD, report(7, state), DECLARED, None) for state in ("done", "failed"))
    going = scale.look(H2, HELD, report(7, "swapping"), DECLARED, None)
    away = scale.look(H3, HELD, None, DECLARED, AWAY_MS_MIN)
    assert scale.state([failed, going]) == "scaling"
    assert scale.state([failed, done, away]) == "failed"
    assert scale.state([done, away]) == "done"
    assert scale.state([]) == "done"
