"""The swap on one host: from what runs to what is assigned.

Rules: an assignment counts only when it is newer and its order allows it; nothing starts before the release lies
verified on the host; what is not ready gets no traffic; what gets no traffic any more is drained, never the reverse; a
release that failed here is not started again until a newer assignment says so; going back to stable never gives up.

Not handled here: how an instance is launched, probed and drained (`decisions.process`), sockets, files, the link.
"""

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from agent.decisions.swap import hand, lease, ranks, scale
from agent.decisions.swap.hand import Place, aim
from agent.decisions.swap.orders import refusal, returns_to_stable
from agent.decisions.swap.slots import LIVE, TypePlan, has_ended, plan_type, why_never_ready
from agent.decisions.swap.state import (
    AdminEnded,
    Assigned,
    ByHand,
    Drain,
    Forget,
    InstanceView,
    Launch,
    Leased,
    Observed,
    PinAsked,
    Prepare,
    Prepared,
    RestartAsked,
    Restarted,
    Route,
    RunAdmin,
    Stop,
    StopAsked,
    SwapAction,
    SwapDecision,
    SwapEvent,
    SwapState,
    Tick,
    Undrain,
    UnpinAsked,
    Wake,
)
from agent.model.assignment import AdminReport, Assignment, PreparedReport, ReleaseRef
from agent.model.ids import ProcessName
from agent.model.process import AppSpec, ProcessType
from agent.model.units import Instant, Milliseconds, elapsed_ms, say_duration

WAIT_FOR_STARTING_MS: Final = 10_000
"""How long connections wait on the slot of an instance that is starting before they are answered 503 instead."""


def step(state: SwapState, event: SwapEvent, now: Instant) -> SwapDecision:
    """Take one event in, say what is to be stored and then done. Never raises for what a host can meet."""
    refused = _refusal(state, event)
    if refused:
        return SwapDecision(state=state, refused=refused)
    anew = _begins_anew(state, event)
    state = hand.judged(_apply(state, event, now), now)
    prepare = [Prepare(release=release) for release in releases(aim(state))] if anew else []
    state, forget = _forget(state, now, ended_too=anew)
    state, admin = _admin(state)
    state, rest = _converge(state, now)
    return SwapDecision(state=state, actions=(*forget, *prepare, *admin, *rest))


def _refusal(state: SwapState, event: SwapEvent) -> str:
    if isinstance(event, Assigned):
        return refusal(state, event)
    return hand.refusal(state, event) if isinstance(event, ByHand) else ""


def _begins_anew(state: SwapState, event: SwapEvent) -> bool:
    """Whether what is to run is to be brought here and looked at as if for the first time."""
    if isinstance(event, Assigned):
        return state.pin is None and not (_same_wish(state, event.assignment) or scale.types(state, event.assignment))
    return isinstance(event, Restarted | PinAsked | UnpinAsked)


# What an event changes


def _apply(state: SwapState, event: SwapEvent, now: Instant) -> SwapState:
    match event:
        case Assigned():
            return _assigned(state, event, now)
        case Prepared():
            return _prepared(state, event)
        case AdminEnded(report=ended):
            mine = state.admin is not None and state.admin.rollout == ended.rollout
            return replace(state, admin=ended) if mine else state
        case Observed(instances=instances):
            return hand.seen(replace(state, instances=instances), now)
        case Restarted():
            return replace(
                state,
                prepared=(),
                spec=None,
                instances=(),
                armed=now,
                done_instances=0,
                all_ready_since=None,
                renewal=state.renewal and replace(state.renewal, armed=now),
            )
        case Leased(leases=leases, shares=shares):
            return replace(state, leases=leases, shares={**state.shares, **shares})
        case Drain() | Undrain():
            return replace(state, draining=isinstance(event, Drain))
        case RestartAsked() | StopAsked() | PinAsked() | UnpinAsked():
            return hand.taken(state, event, now)
        case Tick():
            return state


def _assigned(state: SwapState, event: Assigned, now: Instant) -> SwapState:
    held, assignment = state.assignment, event.assignment
    if _same_wish(state, assignment):
        return replace(state, assignment=assignment)
    sequence = max(state.sequence, event.order.sequence if event.order else 0)
    if state.pin is not None:
        return replace(state, assignment=assignment, order=event.order, sequence=sequence)
    if names := scale.types(state, assignment):
        return scale.taken(state, assignment, names, now)
    same_release = held is not None and held.release == assignment.release
    return replace(
        state,
        assignment=assignment,
        order=event.order,
        sequence=sequence,
        spec=state.spec if same_release else None,
        phase="fetching" if assignment.release else "swapping",
        reason="",
        armed=now,
        done_instances=0,
        all_ready_since=None,
        prepared=(),
        halts=state.halts if same_release else (),
        renewal=state.renewal if same_release else None,
        scaling=None,
    )


def _prepared(state: SwapState, event: Prepared) -> SwapState:
    assignment = aim(state)
    if event.release not in releases(assignment):
        return state
    entry = PreparedReport(release=event.release, failure=event.failure)
    others = tuple(other for other in state.prepared if other.release != event.release)
    state = replace(state, prepared=(*others, entry))
    if assignment is None or event.release != assignment.release:
        return state
    if event.failure:
        return replace(state, phase="failed", reason=event.failure)
    return replace(state, spec=event.spec)


def _same_wish(state: SwapState, assignment: Assignment) -> bool:
    """Whether it is the one that is held, from a coordinator that has perhaps started anew.

    The environment's key is encrypted anew each time it is sent: it says nothing but whether it is there.
    """
    held = state.assignment
    if held is None or (held.environment_key is None) != (assignment.environment_key is None):
        return False
    return replace(assignment, epoch=held.epoch, environment_key=held.environment_key) == held


def releases(assignment: Assignment | None) -> tuple[ReleaseRef, ...]:
    """What is to lie on the host: the assigned release first."""
    if assignment is None:
        return ()
    first = (assignment.release,) if assignment.release else ()
    return (*first, *(release for release in assignment.prepare if release not in first))


def _admin(state: SwapState) -> tuple[SwapState, list[SwapAction]]:
    """Begin the release command once: the stored state says that it runs before it does."""
    assignment = aim(state)
    admin = assignment.admin if assignment else None
    if admin is None or state.draining:
        return state, []
    if state.admin is not None and (state.admin.rollout == admin.rollout or state.admin.state == "running"):
        return state, []  # it has begun, or an earlier rollout's has not ended: never two at once
    if PreparedReport(release=admin.release) not in state.prepared:
        return state, []
    running = AdminReport(rollout=admin.rollout, state="running")
    return replace(state, admin=running), [RunAdmin(rollout=admin.rollout, release=admin.release)]


# What is done about it


def _forget(state: SwapState, now: Instant, *, ended_too: bool) -> tuple[SwapState, list[SwapAction]]:
    """Free the places of what has stopped. What ended by itself stays so, and in sight, until a newer assignment."""
    assignment = aim(state)
    release = assignment.release if assignment else None
    stopping = state.draining or release is None
    surplus = scale.surplus_ended(state, assignment) if assignment is not None and state.spec is not None else set()
    gone = [
        view
        for view in state.instances
        if view.state == "stopped"
        and (
            ended_too
            or stopping
            or not has_ended(view)
            or (release and view.release != release.name)
            or hand.is_over(state, view)
            or (view.process, view.slot) in surplus
        )
    ]
    actions: list[SwapAction] = [Forget(process=view.process, slot=view.slot) for view in gone]
    if not gone:
        return state, []
    places = {(view.process, view.slot) for view in gone}
    state = hand.left(state, places, now)
    kept = tuple(view for view in state.instances if (view.process, view.slot) not in places)
    return replace(state, instances=kept), actions


def _converge(state: SwapState, now: Instant) -> tuple[SwapState, list[SwapAction]]:
    assignment = aim(state)
    if assignment is None:
        return state, []
    if state.draining or assignment.release is None:
        state, actions = _perform(state, ranks.in_turn(state, state.instances), [], now)
        if assignment.release is None and not state.instances:
            state = replace(state, phase="done", reason="")
        return state, actions
    spec = state.spec
    if spec is None:
        return _with_wake(*_perform(state, ranks.in_turn(state, ranks.halted(state)), [], now), now)
    state = scale.without_surplus_halts(state, assignment)
    plans = _plans(state, spec, assignment, now)
    state = (scale.judged if state.scaling else _judge)(state, plans, assignment, now)
    stops, launches = _moves(state, plans, assignment)
    state, actions = _perform(state, stops, launches, now)
    return _with_wake(state, actions, now)


def _plans(state: SwapState, spec: AppSpec, assignment: Assignment, now: Instant) -> dict[ProcessName, TypePlan]:
    """One plan per process type, in ranks: a type may launch once all types in its `after` are complete."""
    release = assignment.release
    if release is None:
        return {}
    plans: dict[ProcessName, TypePlan] = {}
    waiting = list(spec.processes)
    while waiting:
        now_planned = [process for process in waiting if all(name in plans for name in process.after)]
        for process in now_planned or waiting:  # settings refuse cycles; a cycle must not hang a host all the same
            own = tuple(view for view in state.instances if view.process == process.name)
            plan = plan_type(
                process,
                lease.wanted(state, process, assignment.counts.get(process.name, process.count), now),
                release.name,
                own,
                may_launch=all(plans[name].complete for name in process.after if name in plans),
                halted=hand.halted(state, process.name),
                renewed=hand.renewed(state, process.name),
            )
            plans[process.name] = replace(plan, complete=plan.complete and lease.is_decided(state, process))
        waiting = [process for process in waiting if process.name not in plans]
    if all(plan.complete for plan in plans.values()):  # only now may types go that the new release does not have
        gone = [view for view in state.instances if view.process not in plans]
        in_turn = ranks.in_turn(state, gone)
        for name in {view.process for view in gone}:
            slots = tuple(slot for process, slot in sorted(in_turn) if process == name)
            plans[name] = TypePlan(stop=slots, complete=True)
    return plans


def _judge(state: SwapState, plans: dict[ProcessName, TypePlan], assignment: Assignment, now: Instant) -> SwapState:
    """Which word describes the host now; a failure and `done` stay until a newer assignment."""
    if state.phase in ("done", "failed"):
        return state
    release = assignment.release.name if assignment.release else None
    new = [view for view in state.instances if view.release == release]
    old = [view for view in state.instances if view.release != release]
    if all(plan.complete for plan in plans.values()):
        # A break so short that nobody looked in between shows only in the instance's own `since`.
        breaks = [view.since for view in new if view.state == "ready" and view.since.boot_id == now.boot_id]
        since = max([state.all_ready_since or now, *breaks], key=lambda moment: moment.boottime_ms)
        settled = elapsed_ms(since, now) >= assignment.min_ready_ms and not old
        return replace(state, all_ready_since=since, phase="done" if settled else "settling", reason="")
    ready = sum(view.state == "ready" for view in new)
    if ready > state.done_instances:
        state = replace(state, armed=now, done_instances=ready)
    state = replace(state, phase="swapping", all_ready_since=None)
    reason = _failure(new, state, assignment, now)
    return replace(state, phase="failed", reason=reason) if reason else state


def _failure(new: list[InstanceView], state: SwapState, assignment: Assignment, now: Instant) -> str:
    new = [view for view in new if view.state != "draining"]  # of an earlier try, which does not count any more
    if failure := why_never_ready(new):
        return failure
    if state.armed is not None and elapsed_ms(state.armed, now) >= assignment.deadline_ms:
        late = [view for view in new if view.state != "ready"]
        undecided = next((f"{name}: {why}" for name, why in lease.without(state)), "old instances remain")
        who = f"{late[0].process}.{late[0].slot} is {late[0].state}: {late[0].detail}" if late else undecided
        return f"not ready within {say_duration(assignment.deadline_ms)}: {who}"
    return ""


def _moves(
    state: SwapState, plans: dict[ProcessName, TypePlan], assignment: Assignment
) -> tuple[set[Place], list[Place]]:
    release, halted = assignment.release, ranks.halted(state)
    by_hand = ranks.in_turn(state, halted)
    if state.phase == "failed" and not returns_to_stable(state):
        # What failed and never served is stopped, so that it cannot become ready later and take traffic unasked.
        never_ready = {
            (view.process, view.slot)
            for view in state.instances
            if release and view.release == release.name and view.state in LIVE and view.state != "ready"
        }
        return never_ready | by_hand, []
    stops = {(name, slot) for name, plan in plans.items() for slot in plan.stop}
    stops -= {(view.process, view.slot) for view in halted} - by_hand
    return stops, [(name, slot) for name, plan in plans.items() for slot in plan.launch]


def _perform(
    state: SwapState, stops: set[Place], launches: list[Place], now: Instant
) -> tuple[SwapState, list[SwapAction]]:
    """Actions in their order: launch, then route without what is about to stop, then stop."""
    assignment = aim(state)
    release = assignment.release if assignment else None
    actions: list[SwapAction] = []
    if stops := stops | lease.lost(state, now):
        stops &= {(view.process, view.slot) for view in state.instances if view.state in LIVE}
    if release is not None:
        actions += [Launch(process=process, slot=slot, release=release) for process, slot in launches]
        fresh = tuple(
            InstanceView(process=process, slot=slot, release=release.name, state="starting", since=now, launched=now)
            for process, slot in launches
        )
        state = hand.left(replace(state, instances=(*state.instances, *fresh)), set(launches), now)
    if stops:
        stopping = (
            replace(view, state="draining", since=now)
            if (view.process, view.slot) in stops and view.state in LIVE
            else view
            for view in state.instances
        )
        state = replace(state, instances=tuple(stopping))
    actions += _routes(state, now)
    linger_ms = assignment.linger_ms if assignment else None
    actions += [Stop(process=process, slot=slot, linger_ms=linger_ms) for process, slot in sorted(stops)]
    return state, actions


def _routes(state: SwapState, now: Instant) -> Iterator[Route]:
    for name in sorted({view.process for view in state.instances}):
        own = [view for view in state.instances if view.process == name]
        admitted = tuple(sorted(view.slot for view in own if view.state == "ready"))
        yield Route(process=name, admitted=admitted, waiting=() if admitted else _waiting(state, name, own, now))


def _waiting(state: SwapState, name: ProcessName, own: list[InstanceView], now: Instant) -> tuple[int, ...]:
    """Slots with whose instances connections may wait, the newest first."""
    if not _may_wait(state, name):
        return ()
    starting = [
        view for view in own if view.state == "starting" and elapsed_ms(view.launched, now) < WAIT_FOR_STARTING_MS
    ]
    return tuple(view.slot for view in sorted(starting, key=lambda view: (-view.launched.boottime_ms, view.slot)))


def _may_wait(state: SwapState, name: ProcessName) -> bool:
    process: ProcessType | None = state.spec.process(name) if state.spec else None
    return process is None or process.when_none_ready == "wait"


def _with_wake(state: SwapState, actions: list[SwapAction], now: Instant) -> tuple[SwapState, list[SwapAction]]:
    assignment = aim(state)
    moments: list[Milliseconds] = [*hand.deadline(state, now), *lease.ends(state, now)]
    if assignment is not None and state.phase == "settling" and state.all_ready_since is not None:
        moments.append(assignment.min_ready_ms - elapsed_ms(state.all_ready_since, now))
    if assignment is not None and state.phase == "swapping" and state.armed is not None:
        moments.append(assignment.deadline_ms - elapsed_ms(state.armed, now))
    moments += [
        WAIT_FOR_STARTING_MS - elapsed_ms(view.launched, now) for view in state.instances if view.state == "starting"
    ]
    ahead = [moment for moment in moments if moment > 0]
    wake: list[SwapAction] = [Wake(at=now.after(min(ahead)))] if ahead else []
    return state, [*actions, *wake]
