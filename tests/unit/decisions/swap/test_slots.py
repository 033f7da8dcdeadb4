"""What one process type does next on a host: by example, and what holds whatever instances do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from agent.decisions.swap.slots import LIVE, TypePlan, plan_type
from agent.decisions.swap.state import InstanceView
from agent.model.assignment import InstanceState
from agent.model.ids import ProcessName, ReleaseName
from agent.model.process import ProcessType, SwapOrder
from agent.model.units import Instant

WEB = ProcessName("web")
THEN = Instant("boot", 0, 0)
SHOWN: dict[str, InstanceState] = {
    "ready": "ready", "unready": "unready", "starting": "starting", "draining": "draining", "stopped": "stopped",
    "backoff": "backoff", "broken": "exec_failed",
}  # fmt: skip


def views(text: str) -> tuple[InstanceView, ...]:
    """`old ready, new starting, - , old draining`: slots 1, 2, 3, ...; `-` is a free one; `!` after it: by itself."""
    found = []
    for slot, word in enumerate(text.split(", ") if text else [], 1):
        if word != "-":
            release, state = word.removesuffix("!").split()
            found.append(
                InstanceView(
                    process=WEB,
                    slot=slot,
                    release=ReleaseName(release),
                    state=SHOWN[state],
                    since=THEN,
                    launched=THEN,
                    detail="exited with code 0" if word.endswith("!") else "",
                )
            )
    return tuple(found)


class Case(Struct, frozen=True, kw_only=True):
    wanted: int
    there: str
    launch: tuple[int, ...] = ()
    stop: tuple[int, ...] = ()
    complete: bool = False
    order: SwapOrder = "start-first"
    surge: int = 1
    may_launch: bool = True
    halted: tuple[int, ...] = ()
    renewed: tuple[int, ...] = ()


CASES: dict[str, Case] = {
    "nothing runs: all start at once": Case(wanted=3, there="", launch=(1, 2, 3)),
    "all are new and ready": Case(wanted=2, there="new ready, new ready", complete=True),
    "the swap begins with one beside the old": Case(wanted=2, there="old ready, old ready", launch=(3,)),
    "with surge 2 it begins with two": Case(wanted=3, there="old ready, old ready, old ready", surge=2, launch=(4, 5)),
    "one that starts is waited for": Case(wanted=2, there="old ready, old ready, new starting"),
    "a new one that is ready replaces one old": Case(
        wanted=2, there="old ready, old ready, new ready", launch=(4,), stop=(2,)
    ),
    "of the old the one that does not serve goes first": Case(
        wanted=2, there="old backoff, old ready, new ready", launch=(4,), stop=(1,)
    ),
    "a free place is taken again, the lowest first": Case(wanted=2, there="-, old ready, new ready", launch=(1,)),
    "a place that drains is not free": Case(wanted=1, there="old draining", launch=(2,)),
    "the last one is ready: the old go, and it is complete": Case(
        wanted=1, there="old ready, new ready", stop=(1,), complete=True
    ),
    "while its rank waits nothing is launched": Case(wanted=1, there="old ready", may_launch=False),
    "while its rank waits what is stopped first is not stopped": Case(
        wanted=1, there="old ready", order="stop-first", may_launch=False
    ),
    "fewer are wanted: the surplus goes": Case(wanted=1, there="new ready, new ready", stop=(2,), complete=True),
    "fewer are wanted: the one that does not serve goes": Case(
        wanted=1, there="new starting, new ready", stop=(1,), complete=True
    ),
    "none is wanted": Case(wanted=0, there="old ready, new ready", stop=(1, 2), complete=True),
    "stop-first: the old one goes": Case(wanted=1, there="old ready", order="stop-first", stop=(1,)),
    "stop-first: it is waited for": Case(wanted=1, there="old draining", order="stop-first"),
    "stop-first: it is gone": Case(wanted=1, there="", order="stop-first", launch=(1,)),
    "stop-first: a new one that fails keeps the other old one": Case(
        wanted=2, there="new backoff, old ready", order="stop-first"
    ),
    "stop-first: one by one": Case(wanted=2, there="new ready, old ready", order="stop-first", stop=(2,)),
    "what ended by itself is not replaced": Case(wanted=1, there="new stopped!"),
    "a restart begins with one beside the old": Case(
        wanted=2, there="new ready, new ready", renewed=(1, 2), launch=(3,)
    ),
    "a restart of one leaves the other alone": Case(
        wanted=2, there="new ready, new ready, new ready", renewed=(1,), stop=(1,), complete=True
    ),
    "a restart of what ended by itself starts it": Case(wanted=1, there="new stopped!", renewed=(1,), launch=(2,)),
    "stop-first: a restart takes one after the other": Case(
        wanted=2, there="new ready, new ready", order="stop-first", renewed=(1, 2), stop=(2,)
    ),
    "stop-first: its rank waits, and so does its restart": Case(
        wanted=1, there="new ready", order="stop-first", renewed=(1,), may_launch=False
    ),
    "what is stopped by hand goes, and nothing takes its place": Case(
        wanted=2, there="new ready, new ready", halted=(2,), stop=(2,), complete=True
    ),
    "a place that was emptied by hand stays empty": Case(wanted=3, there="new ready", halted=(2,), launch=(3,)),
    "what is stopped by hand drains": Case(wanted=1, there="new draining", halted=(1,), complete=True),
    "a type that is stopped by hand is swapped without a start": Case(
        wanted=1, there="old ready", halted=(1,), stop=(1,), complete=True
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_decides(case: Case) -> None:
    """Each situation leads to what is written beside it."""
    process = ProcessType(name=WEB, command="bin/web", swap=case.order, surge=case.surge)
    found = plan_type(
        process,
        case.wanted,
        ReleaseName("new"),
        views(case.there),
        may_launch=case.may_launch,
        halted=frozenset(case.halted),
        renewed=frozenset(case.renewed),
    )
    assert found == TypePlan(launch=case.launch, stop=case.stop, complete=case.complete)


class Host:
    """One type on a host, with instances that do what hypothesis draws."""

    def __init__(self, process: ProcessType, wanted: int, there: list[tuple[str, InstanceState]]) -> None:
        self.process, self.wanted = process, wanted
        self.there = {
            slot: InstanceView(
                process=WEB, slot=slot, release=ReleaseName(release), state=state, since=THEN, launched=THEN
            )
            for slot, (release, state) in enumerate(there, 1)
        }
        self.halted: set[int] = set()
        self.renewed: set[int] = set()

    def ready(self) -> int:
        return sum(view.state == "ready" for view in self.there.values())

    def live(self, release: str | None = None) -> int:
        return sum(view.state in LIVE and release in (None, view.release) for view in self.there.values())

    def step(self, *, may_launch: bool = True) -> TypePlan:
        plan = plan_type(
            self.process,
            self.wanted,
            ReleaseName("new"),
            tuple(self.there.values()),
            may_launch=may_launch,
            halted=frozenset(self.halted),
            renewed=frozenset(self.renewed),
        )
        assert not self.halted.intersection(plan.launch), "what a person stopped was started"
        for slot in plan.stop:
            self.there[slot] = replace(self.there[slot], state="draining")
        for slot in plan.launch:
            assert slot not in self.there, "a place was taken twice"
            self.there[slot] = InstanceView(
                process=WEB, slot=slot, release=ReleaseName("new"), state="starting", since=THEN, launched=THEN
            )
        return plan

    def happen(self, data: st.DataObject) -> None:
        """One instance goes on with its life, however it likes."""
        if self.there:
            slot = data.draw(st.sampled_from(sorted(self.there)))
            if self.there[slot].state == "draining":
                self.go(slot)
            else:
                state: InstanceState = data.draw(st.sampled_from(sorted(LIVE)))
                self.there[slot] = replace(self.there[slot], state=state)

    def go(self, slot: int) -> None:
        """It is gone: who takes its place is a fresh instance."""
        del self.there[slot]
        self.renewed.discard(slot)

    def thrive(self) -> None:
        """What drains is gone, what is new becomes ready."""
        for slot, view in list(self.there.items()):
            if view.state == "draining":
                self.go(slot)
            elif view.release == "new":
                self.there[slot] = replace(view, state="ready")


hosts = st.builds(
    lambda order, surge, wanted, there: Host(
        ProcessType(name=WEB, command="bin/web", swap=order, surge=surge), wanted, there
    ),
    st.sampled_from(["start-first", "stop-first"]),
    st.integers(1, 3),
    st.integers(0, 4),
    st.lists(
        st.tuples(st.sampled_from(["old", "older", "new"]), st.sampled_from([*sorted(LIVE), "draining"])), max_size=6
    ),
)


@given(st.data(), hosts)
def test_no_decision_takes_ready_instances_below_what_is_wanted(data: st.DataObject, host: Host) -> None:
    """Start-first never lowers the number of ready instances below what is wanted, whatever instances do meanwhile."""
    host.process = replace(host.process, swap="start-first")
    for _ in range(10):
        before = host.ready()
        host.step(may_launch=data.draw(st.booleans()))
        assert host.ready() >= min(before, host.wanted)
        host.happen(data)


@given(st.data(), hosts)
def test_a_restart_takes_no_ready_instances_away(data: st.DataObject, host: Host) -> None:
    """Start-first: a restart of any of them, at any moment, never lowers the number of ready ones below the wanted."""
    host.process = replace(host.process, swap="start-first")
    for _ in range(10):
        host.renewed |= set(data.draw(st.lists(st.sampled_from(sorted(host.there)) if host.there else st.nothing())))
        before = host.ready()
        host.step(may_launch=data.draw(st.booleans()))
        assert host.ready() >= min(before, host.wanted)
        host.happen(data)


@given(st.data(), hosts)
def test_a_restart_comes_to_an_end_and_what_is_stopped_stays_so(data: st.DataObject, host: Host) -> None:
    """Where fresh instances become ready, each is replaced once; stopped places are empty in the end."""
    places = st.lists(st.integers(1, 6), max_size=3).map(set)
    host.halted = data.draw(places)
    host.renewed = data.draw(places) & host.there.keys() - host.halted
    for _ in range(30):
        host.step()
        host.thrive()
    assert host.step() == TypePlan(complete=True)
    assert not host.renewed
    assert not host.halted & host.there.keys()
    assert len(host.there) == max(0, host.wanted - len(host.halted))


@given(st.data(), hosts)
def test_start_first_never_launches_beyond_its_surge(data: st.DataObject, host: Host) -> None:
    """Beside what was there, at most `surge` new instances are under way that do not serve yet."""
    host.process = replace(host.process, swap="start-first")
    for _ in range(10):
        unready = host.live("new") - sum(v.state == "ready" and v.release == "new" for v in host.there.values())
        plan = host.step()
        if host.live("old") + host.live("older") and plan.launch:
            assert unready + len(plan.launch) <= host.process.surge
        assert host.live("new") <= max(host.wanted, 0)
        host.happen(data)


@given(st.data(), hosts)
def test_stop_first_never_overlaps(data: st.DataObject, host: Host) -> None:
    """A stop-first type launches only into room that is free: what drains still counts."""
    host.process = replace(host.process, swap="stop-first")
    for _ in range(10):
        plan = host.step()
        assert not plan.launch or len(host.there) <= host.wanted
        host.happen(data)


@given(hosts)
def test_converges_when_instances_thrive(host: Host) -> None:
    """Where new instances become ready and old ones leave, only the wanted new ones are left in the end."""
    for _ in range(20):
        host.step()
        host.thrive()
    assert host.step() == TypePlan(complete=True)
    assert [view.release for view in host.there.values()] == ["new"] * host.wanted
