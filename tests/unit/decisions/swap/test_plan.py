"""What the transcripts do not show of a swap: races, repetitions, and what a report says."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.decisions.swap import plan
from agent.decisions.swap.report import report
from agent.decisions.swap.state import (
    AdminEnded,
    Assigned,
    Drain,
    InstanceView,
    Observed,
    Prepare,
    Prepared,
    Restarted,
    RunAdmin,
    Stop,
    SwapEvent,
    SwapState,
    Tick,
    durable,
)
from agent.model.assignment import AdminReport, AdminRun, Assignment, InstanceState, ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, ProcessName, ReleaseName, RolloutId
from agent.model.process import AppSpec, ProcessType
from agent.model.release import Order
from agent.model.units import Instant

APP, WEB = AppName("shop"), ProcessName("web")
SPEC = AppSpec(app=APP, processes=(ProcessType(name=WEB, command="bin/web"),))
NOW = Instant("boot", 1_000, 1_000)


def ref(name: str) -> ReleaseRef:
    return ReleaseRef(name=ReleaseName(name), digest=Digest(f"sha256:{name}"))


def assigned(release: str, generation: int, *, epoch: int = 1, admin: str | None = None) -> Assigned:
    order = Order(
        kind="swap",
        app=APP,
        environment=EnvironmentName("local"),
        release=ref("v2").name,
        release_digest=ref("v2").digest,
        replaces=ref("v1").name,
        replaces_digest=ref("v1").digest,
        sequence=1,
    )
    assignment = Assignment(
        app=APP,
        environment=EnvironmentName("local"),
        epoch=epoch,
        generation=generation,
        release=ref(release),
        order="",
        prepare=(ref("v2"), ref("v1")),
        admin=AdminRun(rollout=RolloutId(admin), release=ref("v2")) if admin else None,
        min_ready_ms=0,
        deadline_ms=1_000,
    )
    return Assigned(assignment=assignment, order=order)


def view(release: str, state: InstanceState, *, slot: int = 1, crash_looping: bool = False) -> InstanceView:
    return InstanceView(
        process=WEB,
        slot=slot,
        release=ReleaseName(release),
        state=state,
        since=NOW,
        launched=NOW,
        crash_looping=crash_looping,
    )


def after(*events: SwapEvent, state: SwapState | None = None) -> SwapState:
    state = state or SwapState()
    for event in events:
        state = plan.step(state, event, NOW).state
    return state


BOTH = (Prepared(release=ref("v1"), spec=SPEC), Prepared(release=ref("v2"), spec=SPEC))


def test_the_same_wish_of_a_new_epoch_changes_nothing_but_the_epoch() -> None:
    """A coordinator that has started anew and repeats itself disturbs nobody."""
    before = after(assigned("v1", 1), *BOTH, Observed(instances=(view("v1", "ready"),)))
    decision = plan.step(before, assigned("v1", 1, epoch=2), NOW)
    assert decision.state.phase == before.phase == "done"
    assert not any(isinstance(action, Prepare) for action in decision.actions)
    assert decision.state.assignment is not None
    assert decision.state.assignment.epoch == 2


def test_another_wish_of_the_same_generation_is_taken_up_whole() -> None:
    """A coordinator restored from a backup may number its wishes again: the host fetches what is new in them."""
    before = after(assigned("v1", 1), *BOTH)
    decision = plan.step(before, assigned("v2", 1, epoch=2), NOW)
    assert Prepare(release=ref("v2")) in decision.actions


def test_a_drain_right_after_a_start_of_the_agent_goes_in_ranks() -> None:
    """An agent that is told to drain before it has looked at the release stops nothing that others still need."""
    mail = ProcessType(name=ProcessName("mail"), command="bin/mail", after=(WEB,))
    served = replace(view("v1", "ready"), type=SPEC.processes[0])
    needs = replace(view("v1", "ready"), process=mail.name, type=mail)
    started = after(assigned("v1", 1), *BOTH, Restarted(), Observed(instances=(served, needs)))
    assert started.spec is None
    first = plan.step(started, Drain(), NOW)
    assert [action.process for action in first.actions if isinstance(action, Stop)] == [mail.name]
    gone = replace(needs, state="stopped")
    then = plan.step(first.state, Observed(instances=(served, gone)), NOW)
    assert [action.process for action in then.actions if isinstance(action, Stop)] == [WEB]


def test_what_drains_of_an_earlier_try_does_not_fail_the_next_one() -> None:
    """Resumed after a crash loop, a host starts the release again though the looping instance still drains."""
    looping = view("v2", "backoff", crash_looping=True)
    failed = after(assigned("v2", 1), *BOTH, Observed(instances=(looping,)))
    assert failed.phase == "failed"
    again = plan.step(failed, assigned("v2", 2), NOW).state
    assert again.phase == "swapping"
    assert [(one.slot, one.state) for one in again.instances] == [(1, "draining"), (2, "starting")]


def test_each_assignment_looks_anew_whether_its_releases_can_run_here() -> None:
    """What could run an hour ago is not taken for granted: a rollout asks before anything moves."""
    before = after(assigned("v1", 1), *BOTH)
    again = plan.step(before, assigned("v1", 2), NOW)
    assert [one for one in again.actions if isinstance(one, Prepare)] == [Prepare(release=ref(f"v{n}")) for n in (1, 2)]
    assert again.state.prepared == ()


def test_release_commands_of_two_rollouts_never_run_at_once() -> None:
    """The command of a rollout waits until that of an aborted one before it has ended."""
    running = after(assigned("v1", 1, admin="r1"), *BOTH)
    waiting = plan.step(running, assigned("v1", 2, admin="r2"), NOW)
    for prepared in BOTH:
        assert not any(isinstance(action, RunAdmin) for action in waiting.actions)
        waiting = plan.step(waiting.state, prepared, NOW)
    assert not any(isinstance(action, RunAdmin) for action in waiting.actions)
    ended = AdminEnded(report=AdminReport(rollout=RolloutId("r1"), state="failed", exit_code=1))
    assert RunAdmin(rollout="r2", release=ref("v2")) in plan.step(waiting.state, ended, NOW).actions


def test_the_end_of_another_rollouts_command_is_not_taken() -> None:
    """What a command of an earlier rollout says late is not said of the present one."""
    running = after(assigned("v1", 1, admin="r1"), *BOTH)
    late = AdminEnded(report=AdminReport(rollout=RolloutId("r0"), state="succeeded", exit_code=0))
    assert plan.step(running, late, NOW).state.admin == running.admin


def test_a_report_is_the_whole_truth() -> None:
    """The coordinator reads which release, how far, and every instance."""
    said = report(after(assigned("v1", 4), *BOTH, Observed(instances=(view("v1", "ready"),))))
    assert (said.generation, said.release, said.state) == (4, "v1", "done")
    assert [(one.name, one.state) for one in said.instances] == [("web.1", "ready")]
    assert {entry.release.name for entry in said.prepared} == {"v1", "v2"}


states: st.SearchStrategy[InstanceState] = st.sampled_from(
    ["starting", "ready", "unready", "draining", "stopped", "backoff", "exec_failed"]
)
events: st.SearchStrategy[SwapEvent] = st.one_of(
    st.builds(assigned, st.sampled_from(["v1", "v2"]), st.integers(1, 5), epoch=st.integers(1, 3)),
    st.sampled_from([*BOTH, Prepared(release=ref("v2"), failure="its digest is wrong"), Tick(), Restarted()]),
    st.lists(st.builds(view, st.sampled_from(["v1", "v2"]), states), max_size=1).map(
        lambda seen: Observed(instances=tuple(seen))
    ),
)


@given(st.lists(events, max_size=12), events)
def test_asking_again_gives_the_same_state(history: list[SwapEvent], event: SwapEvent) -> None:
    """Events are levels: an event that comes twice at the same moment leaves the same stored state as once."""
    once = plan.step(after(*history), event, NOW).state
    twice = plan.step(once, event, NOW).state
    if not isinstance(event, Restarted):
        assert replace(durable(twice), prepared=()) == replace(durable(once), prepared=())
