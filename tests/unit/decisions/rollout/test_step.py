"""A rollout under any events: it ends, it keeps its budget, and nothing is told twice."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.decisions.rollout import hosts
from agent.decisions.rollout.begin import plan
from agent.decisions.rollout.state import (
    Abort,
    Begin,
    Ended,
    Give,
    HostsChanged,
    Pause,
    Reachable,
    Reported,
    Restarted,
    Resume,
    RolloutAction,
    RolloutEvent,
    Tick,
    Wake,
)
from agent.decisions.rollout.step import JUMP_MS_MAX, TICK_MS_MAX, step
from agent.model.assignment import (
    AdminReport,
    AppReport,
    HostState,
    InstanceReport,
    Overrides,
    PreparedReport,
    ReleaseRef,
)
from agent.model.environment import EnvironmentSettings, RollingSettings, Share
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName, RolloutId
from agent.model.process import AppSpec, ProcessType, ReleaseCommand
from agent.model.release import Order, OrderKind
from agent.model.rollout import HostStep, OnFailure, Rollout
from agent.model.units import Instant

APP, ENVIRONMENT = AppName("shop"), EnvironmentName("local")
NAMES = (HostName("h1"), HostName("h2"), HostName("h3"))
V1, V2 = (ReleaseRef(name=ReleaseName(name), digest=Digest(f"sha256:{name}")) for name in ("v1", "v2"))


def planned(
    *,
    kind: OrderKind = "swap",
    migration: bool = False,
    stop_first: bool = False,
    on_failure: OnFailure = "rollback",
    batch: int = 1,
) -> Rollout:
    order = Order(
        kind=kind,
        app=APP,
        environment=ENVIRONMENT,
        release=V2.name,
        release_digest=V2.digest,
        replaces=V1.name,
        replaces_digest=V1.digest,
        sequence=1,
    )
    web = ProcessType(name=ProcessName("web"), command="bin/web", swap="stop-first" if stop_first else "start-first")
    return plan(
        rollout_id=RolloutId("r1"),
        order=order,
        envelope="",
        settings=EnvironmentSettings(
            rolling=RollingSettings(
                batch=Share(count=batch), on_failure=on_failure, deadline_ms=60_000, progress_deadline_ms=120_000
            )
        ),
        spec=AppSpec(app=APP, processes=(web,), release=ReleaseCommand(command="bin/migrate") if migration else None),
        hosts=tuple(HostStep(host=name) for name in NAMES),
        first_generation=1,
        asked_by="ada",
        now_ms=0,
    )


def report(
    rollout: Rollout, host: HostName, state: HostState, *, prepared: bool = True, exit_code: int | None = None
) -> Reported:
    """What a host says that has got its newest assignment."""
    held = hosts.find(rollout, host)
    admin = None
    if exit_code is not None:
        admin = AdminReport(rollout=rollout.id, state="failed" if exit_code else "succeeded", exit_code=exit_code)
    return Reported(
        host=host,
        report=AppReport(
            app=APP,
            environment=ENVIRONMENT,
            generation=held.generation if held else 0,
            release=None,
            state=state,
            prepared=tuple(PreparedReport(release=one) for one in (V1, V2)) if prepared else (),
            admin=admin,
        ),
    )


def at(now_ms: int) -> Instant:
    return Instant("boot", now_ms, now_ms)


def after(rollout: Rollout, events: Iterable[RolloutEvent], *, now_ms: int = 0) -> Rollout:
    for event in events:
        rollout = step(rollout, event, at(now_ms)).state
    return rollout


def running(rollout: Rollout) -> Rollout:
    """Begun, and prepared everywhere."""
    rollout = after(rollout, [Begin()])
    for name in NAMES:
        rollout = after(rollout, [report(rollout, name, "done")])
    return rollout


def told_all(rollout: Rollout, events: Iterable[RolloutEvent]) -> tuple[Rollout, list[Give]]:
    given: list[Give] = []
    for event in events:
        decision = step(rollout, event, at(0))
        rollout = decision.state
        given += [action for action in decision.actions if isinstance(action, Give)]
    return rollout, given


def told(actions: Iterable[RolloutAction]) -> list[HostName]:
    return [action.host for action in actions if isinstance(action, Give)]


def test_new_settings_reach_a_host_when_it_moves_and_leave_it_when_it_goes_back() -> None:
    """Until its turn a host runs stable with what it had; moved, with the settings of now; brought back, as before."""
    had = Overrides(counts={ProcessName("web"): 1})
    rollout = planned(migration=True)
    rollout = replace(rollout, hosts=tuple(replace(one, before=had) for one in rollout.hosts))
    rollout, given = told_all(rollout, [Begin()])
    assert [(give.release, give.overrides) for give in given] == [(V1, had)] * 3
    prepared = [report(rollout, name, "done") for name in NAMES]
    rollout, given = told_all(rollout, prepared)
    assert [(give.release, give.overrides) for give in given if give.admin] == [(V1, had)]
    rollout, given = told_all(rollout, [report(rollout, NAMES[0], "done", exit_code=0)])
    assert [(give.host, give.release, give.overrides) for give in given] == [(NAMES[0], V2, None)]
    rollout, given = told_all(rollout, [HostsChanged(hosts=(*NAMES, HostName("h4")))])
    assert [(give.host, give.release, give.overrides) for give in given] == [(HostName("h4"), V1, had)]
    rollout, given = told_all(rollout, [report(rollout, NAMES[0], "failed")])
    assert [(give.host, give.release, give.overrides) for give in given] == [(NAMES[0], V1, had)]


def test_a_release_command_without_an_exit_code_says_why_by_its_last_line() -> None:
    """Whoever reads the reason learns of a timeout or a kill from it."""
    rollout = running(planned(migration=True))
    told = report(rollout, NAMES[0], "done", exit_code=1)
    ended = AdminReport(rollout=rollout.id, state="failed", output="so far\n\nended at its timeout\n")
    rollout = after(rollout, [replace(told, report=replace(told.report, admin=ended))])
    assert rollout.reason == "the release command failed on h1: ended at its timeout"


def test_a_connection_that_comes_and_goes_is_no_progress() -> None:
    """A host that is done and flaps does not put off the deadline of one that is stuck."""
    rollout = running(planned())
    rollout = after(rollout, [report(rollout, NAMES[0], "done")])
    now_ms = 0
    while not rollout.terminal and rollout.state == "running":
        now_ms += 30_000
        assert now_ms <= 200_000, "its deadline never comes"
        flap = (Reachable(host=NAMES[0], reachable=False), Reachable(host=NAMES[0], reachable=True))
        rollout = after(rollout, flap, now_ms=now_ms)
        rollout = after(rollout, [report(rollout, NAMES[0], "done")], now_ms=now_ms)
    assert "no progress" in rollout.reason


def test_each_host_that_is_back_gives_the_next_one_its_time() -> None:
    """On the way back the deadline is armed anew by each host: many slow ones are no failure."""
    rollout = running(planned(batch=3))
    rollout = replace(rollout, back_pace=replace(rollout.back_pace, batch=1))
    rollout = after(rollout, [Abort(by="ada")])
    for number, name in enumerate(NAMES, 1):
        now_ms = number * 50_000
        rollout = after(rollout, [report(rollout, name, "done")], now_ms=now_ms)
        rollout = after(rollout, [Tick()], now_ms=now_ms + 25_000)
    assert (rollout.state, rollout.clock_ms) == ("aborted", 150_000)


def test_restarted_no_host_is_believed_to_be_there() -> None:
    """A coordinator that starts anew tells nobody to move before it has heard of the hosts."""
    rollout = running(planned())
    rollout = after(rollout, [report(rollout, NAMES[0], "swapping")])
    decision = step(rollout, Restarted(), at(0))
    assert not told(decision.actions)
    assert not any(one.reachable for one in decision.state.hosts)


JUMPS = {
    "the wall clock leaps an hour": (Instant("boot", 5, 3_600_000), 5),
    "the wall clock falls back an hour": (Instant("boot", 5, -3_600_000), 5),
    "the coordinator was away for an hour": (Instant("boot", 3_600_000, 3_600_000), JUMP_MS_MAX),
    "its machine was off for an hour": (Instant("next", 5, 3_600_000), JUMP_MS_MAX),
    "its machine was off, and the wall clock fell back": (Instant("next", 5, -3_600_000), 0),
}


@pytest.mark.parametrize(("now", "clock_ms"), JUMPS.values(), ids=JUMPS)
def test_a_jump_of_the_clock_ends_no_deadline(now: Instant, clock_ms: int) -> None:
    """An hour that the wall clock leaps, or that the coordinator was away, is not an hour of waiting."""
    rollout = step(running(planned()), Tick(), now).state
    assert (rollout.state, rollout.clock_ms) == ("running", clock_ms)


def test_a_rollout_of_no_hosts_ends() -> None:
    """When all hosts have left, the deadline ends the rollout."""
    rollout = after(running(planned()), [HostsChanged(hosts=())])
    for now_ms in range(0, 200_000, TICK_MS_MAX):
        rollout = after(rollout, [Tick()], now_ms=now_ms)
    assert rollout.terminal


REFUSED: dict[str, tuple[Rollout, RolloutEvent, str]] = {
    "pausing before anything moves": (after(planned(), [Begin()]), Pause(by="ada"), "cannot pause"),
    "resuming what is not paused": (running(planned()), Resume(by="ada"), "cannot resume"),
    "aborting twice": (after(running(planned()), [Abort(by="ada")]), Abort(by="ada"), "cannot abort"),
    "aborting the way back": (after(planned(kind="rollback"), [Begin()]), Abort(by="ada"), "way back already"),
}


def test_words_in_a_wrong_state_do_nothing() -> None:
    """An operator's word that the state does not know is refused, and changes nothing but the clock."""
    for sentence, (rollout, word, because) in REFUSED.items():
        decision = step(rollout, word, at(5))
        assert because in decision.refused, sentence
        assert (decision.state, decision.changed) == (rollout, False), sentence


BUDGETS: dict[str, tuple[bool, int, int, str, int]] = {
    # gapless, batch, max_unavailable, who is away, so many may move
    "gapless: a batch": (True, 2, 1, "", 2),
    "gapless: one away is allowed for": (True, 2, 1, "away", 2),
    "gapless: two are too many": (True, 2, 1, "away failed", 0),
    "with gaps: as many as may be away": (False, 3, 2, "", 2),
    "with gaps: those that are away count": (False, 3, 2, "failed", 1),
    "with gaps: a batch bounds it all the same": (False, 1, 3, "", 1),
}


def test_the_budget() -> None:
    """How many hosts may move, by what is away already."""
    for sentence, (gapless, batch, max_unavailable, away, room) in BUDGETS.items():
        pace = replace(planned().pace, batch=batch, max_unavailable=max_unavailable)
        steps = [HostStep(host=name, state="done") for name in NAMES]
        for index, how in enumerate(away.split()):
            changed: HostStep = steps[index]
            steps[index] = replace(changed, reachable=False) if how == "away" else replace(changed, state="failed")
        rollout = replace(planned(), gapless=gapless, hosts=tuple(steps))
        assert hosts.budget(rollout, pace, 0) == room, sentence


states: st.SearchStrategy[HostState] = st.sampled_from(
    ["waiting", "fetching", "swapping", "settling", "done", "failed"]
)
names = st.sampled_from([*NAMES, HostName("h4")])
plans = st.builds(
    planned,
    kind=st.sampled_from(["swap", "rollback"]),
    migration=st.booleans(),
    stop_first=st.booleans(),
    on_failure=st.sampled_from(["rollback", "pause"]),
    batch=st.integers(1, 3),
)


happenings = st.tuples(
    st.sampled_from(["report", "report", "report", "reachable", "hosts", "word"]),
    names,
    states,
    st.booleans(),
    st.sampled_from([None, None, 0, 1]),
    st.lists(names, unique=True, max_size=4),
    st.sampled_from([Tick(), Restarted(), Abort(by="ada"), Pause(by="ada"), Resume(by="ada")]),
    st.sampled_from([0, 100, 5_000, 40_000]),
)
Happening = tuple[str, HostName, HostState, bool, int | None, list[HostName], RolloutEvent, int]


def event_of(happening: Happening, rollout: Rollout) -> RolloutEvent:
    """Something that can happen at any time."""
    kind, name, state, yes, exit_code, members, word, _ = happening
    match kind:
        case "report":
            return report(rollout, name, state, prepared=yes, exit_code=exit_code)
        case "reachable":
            return Reachable(host=name, reachable=yes)
        case "hosts":
            return HostsChanged(hosts=tuple(members))
        case _:
            return word


@given(st.lists(happenings, max_size=30), plans)
def test_every_rollout_ends_whatever_happens(history: list[Happening], rollout: Rollout) -> None:
    """After any history, silence from all hosts ends the rollout by its deadlines, unless a person paused it."""
    rollout = after(rollout, [Begin()])
    now_ms = 0
    for happening in history:
        now_ms += happening[-1]
        rollout = after(rollout, [event_of(happening, rollout)], now_ms=now_ms)
    for _ in range(30):
        if rollout.state == "paused":
            return
        now_ms += TICK_MS_MAX
        rollout = after(rollout, [Tick()], now_ms=now_ms)
    assert rollout.terminal


@given(st.lists(happenings, max_size=30), plans)
def test_what_is_decided_is_consistent(history: list[Happening], rollout: Rollout) -> None:
    """Generations only grow, a batch is kept, nothing changes after the end, and the end is told once."""
    rollout = after(rollout, [Begin()])
    ends, now_ms = 0, 0
    for happening in history:
        now_ms += happening[-1]
        before = rollout
        decision = step(rollout, event_of(happening, rollout), at(now_ms))
        rollout = decision.state
        gives = [action for action in decision.actions if isinstance(action, Give)]
        assert sorted({give.generation for give in gives}) == [give.generation for give in gives]
        assert all(give.generation >= before.next_generation for give in gives)
        forward = [give for give in gives if give.release == rollout.release and not give.admin]
        assert len(forward) <= rollout.pace.batch or rollout.state == "rolling_back"
        ends += sum(isinstance(action, Ended) for action in decision.actions)
        assert ends == (1 if rollout.terminal else 0)
        assert not before.terminal or (rollout == before and not decision.actions)
        assert decision.changed or not gives
        assert rollout.terminal or decision.refused or any(isinstance(action, Wake) for action in decision.actions)


def test_slow_starts_of_the_new_release_are_kept() -> None:
    """An instance of it that took over 30 s to become ready is known by name as long as the rollout is."""
    rollout = planned()

    def told(start_ms: int | None, release: ReleaseRef = V2, slot: int = 1) -> AppReport:
        instance = InstanceReport(
            process=ProcessName("web"),
            slot=slot,
            release=release.name,
            state="ready",
            pid=7,
            since_ms=0,
            restarts=0,
            start_ms=start_ms,
        )
        return AppReport(
            app=APP,
            environment=ENVIRONMENT,
            generation=1,
            release=release.name,
            state="swapping",
            instances=(instance,),
        )

    for report in (told(None), told(30_000), told(60_000, V1), told(41_500, slot=2), told(2_000, slot=2)):
        rollout = hosts.reported(rollout, NAMES[1], report)
    assert {step.host: step.slow_starts_ms for step in rollout.hosts if step.slow_starts_ms} == {
        NAMES[1]: {"web.2": 41_500}
    }
