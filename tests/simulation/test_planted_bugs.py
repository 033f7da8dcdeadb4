"""Is the simulation able to see? Each bug that somebody might write is planted, and must be found within few seeds."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from agent.decisions.rollout import back, forward, hosts
from agent.decisions.rollout.state import Ended, RolloutAction
from agent.decisions.swap import plan, slots
from agent.decisions.swap.state import InstanceView, Restarted, Route, SwapEvent, SwapState
from agent.model.assignment import AppReport, Assignment
from agent.model.ids import HostName, ProcessName
from agent.model.process import ProcessType
from agent.model.rollout import HostStep, Pace, Rollout
from agent.model.units import Instant
from agent.wire.messages import Welcome
from agent.wire.session import AgentSide, key_of
from tests.simulation.scenarios import breach_of

SEEDS = 120
Plant = Callable[[pytest.MonkeyPatch], None]


def stops_before_the_new_is_ready(patch: pytest.MonkeyPatch) -> None:
    def start_first(
        process: ProcessType, wanted: int, new: list[InstanceView], old: list[InstanceView]
    ) -> tuple[int, list[InstanceView]]:
        return wanted, old[max(0, wanted - len(new)) :]

    patch.setattr(slots, "_start_first", start_first)


def routes_to_what_is_starting(patch: pytest.MonkeyPatch) -> None:
    def routes(state: SwapState, now: Instant) -> list[Route]:
        names = sorted({view.process for view in state.instances})
        live = [view for view in state.instances if view.state in ("ready", "starting")]
        return [Route(process=name, admitted=tuple(v.slot for v in live if v.process == name)) for name in names]

    patch.setattr(plan, "_routes", routes)


def leaves_in_the_program_what_stops(patch: pytest.MonkeyPatch) -> None:
    routes = plan._routes

    def late(state: SwapState, now: Instant) -> list[Route]:
        ready = tuple(replace(view, state="ready") if view.state == "draining" else view for view in state.instances)
        return list(routes(replace(state, instances=ready), now))

    patch.setattr(plan, "_routes", late)


def starts_a_second_stop_first(patch: pytest.MonkeyPatch) -> None:
    def stop_first(
        process: ProcessType, wanted: int, new: list[InstanceView], old: list[InstanceView], leaving: int
    ) -> tuple[int, list[InstanceView]]:
        return wanted - len(new), old

    patch.setattr(slots, "_stop_first", stop_first)


def takes_an_older_generation(patch: pytest.MonkeyPatch) -> None:
    def assigned(self: AgentSide, assignment: Assignment) -> AgentSide:
        age = (assignment.epoch, assignment.generation)
        return replace(self, newest={**self.newest, key_of(assignment): age})

    patch.setattr(AgentSide, "assigned", assigned)
    patch.setattr(plan, "refusal", lambda state, event: "")


def listens_to_a_past_epoch(patch: pytest.MonkeyPatch) -> None:
    def welcomed(self: AgentSide, welcome: Welcome) -> AgentSide:
        return self

    def assigned(self: AgentSide, assignment: Assignment) -> AgentSide | None:
        known = self.newest.get(key_of(assignment), (0, 0))[1]
        if assignment.generation <= known:
            return None
        return replace(self, newest={**self.newest, key_of(assignment): (0, assignment.generation)})

    patch.setattr(AgentSide, "welcomed", welcomed)
    patch.setattr(AgentSide, "assigned", assigned)
    patch.setattr(plan, "refusal", lambda state, event: "")


def migrates_again_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    apply: Callable[[SwapState, SwapEvent, Instant], SwapState] = plan._apply

    def forgetful(state: SwapState, event: SwapEvent, now: Instant) -> SwapState:
        state = apply(state, event, now)
        return replace(state, admin=None) if isinstance(event, Restarted) else state

    patch.setattr(plan, "_apply", forgetful)


def moves_before_the_migration_has_ended(patch: pytest.MonkeyPatch) -> None:
    def migrate(rollout: Rollout) -> forward.Outcome:
        rollout, actions = forward_migrate(rollout)
        return (replace(rollout, state="running"), actions) if rollout.migration else (rollout, actions)

    forward_migrate = forward.migrate
    patch.setattr(forward, "migrate", migrate)


def skips_the_preflight(patch: pytest.MonkeyPatch) -> None:
    def preflight(rollout: Rollout) -> forward.Outcome:
        return replace(rollout, state="migrating"), []

    patch.setattr(forward, "preflight", preflight)


def moves_all_at_once(patch: pytest.MonkeyPatch) -> None:
    def budget(rollout: Rollout, pace: Pace, on_their_way: int) -> int:
        return len(rollout.hosts)

    patch.setattr(hosts, "budget", budget)


def counts_nobody_as_moving(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hosts, "moving", lambda rollout, steps: 0)


def believes_old_reports(patch: pytest.MonkeyPatch) -> None:
    reported = hosts.reported

    def credulous(rollout: Rollout, host: HostName, report: AppReport) -> Rollout:
        return reported(rollout, host, replace(report, generation=rollout.next_generation))

    patch.setattr(hosts, "reported", credulous)


def ends_with_the_first_host(patch: pytest.MonkeyPatch) -> None:
    def all_done(rollout: Rollout) -> bool:
        return any(step.moved and step.state == "done" for step in rollout.hosts)

    patch.setattr(forward, "_all_done", all_done)


def ends_before_stable_is_back(patch: pytest.MonkeyPatch) -> None:
    def run(rollout: Rollout) -> tuple[Rollout, list[RolloutAction]]:
        ended, actions = back_run(rollout)
        if ended.terminal:
            return ended, actions
        state = rollout.failed_as or "failed"
        return replace(ended, state=state), [*actions, Ended(state=state, runs=rollout.previous, healthy=True)]

    back_run = back.run
    patch.setattr(back, "run", run)


def forgets_that_it_gave_stable_back(patch: pytest.MonkeyPatch) -> None:
    def put(rollout: Rollout, step: HostStep) -> Rollout:
        return hosts_put(rollout, replace(step, back=False))

    hosts_put = hosts.put
    patch.setattr(hosts, "put", put)


def goes_on_with_what_has_failed(patch: pytest.MonkeyPatch) -> None:
    def moves(
        state: SwapState, plans: dict[ProcessName, slots.TypePlan], assignment: Assignment
    ) -> tuple[set[tuple[ProcessName, int]], list[tuple[ProcessName, int]]]:
        stops = {(name, slot) for name, one in plans.items() for slot in one.stop}
        return stops, [(name, slot) for name, one in plans.items() for slot in one.launch]

    patch.setattr(plan, "_moves", moves)


def never_gives_up_on_a_host(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hosts, "lost", lambda rollout, step: False)
    patch.setattr(forward, "_overdue", lambda rollout: False)


def is_done_at_once(patch: pytest.MonkeyPatch) -> None:
    judge = plan._judge

    def hasty(
        state: SwapState, plans: dict[ProcessName, slots.TypePlan], assignment: Assignment, now: Instant
    ) -> SwapState:
        state = judge(state, plans, assignment, now)
        return replace(state, phase="done") if state.phase == "settling" else state

    patch.setattr(plan, "_judge", hasty)


BUGS: dict[str, Plant] = {
    "an old instance is stopped before the new one is ready": stops_before_the_new_is_ready,
    "an instance gets traffic while it starts": routes_to_what_is_starting,
    "an instance is stopped while it still gets traffic": leaves_in_the_program_what_stops,
    "a stop-first type starts before the old one is gone": starts_a_second_stop_first,
    "generations are not compared": takes_an_older_generation,
    "epochs are not compared": listens_to_a_past_epoch,
    "the release command runs again after a restart": migrates_again_after_a_restart,
    "hosts move before the release command has ended": moves_before_the_migration_has_ended,
    "hosts move before the release lies on all": skips_the_preflight,
    "all hosts move at once": moves_all_at_once,
    "hosts that move do not count": counts_nobody_as_moving,
    "what a host says of an earlier assignment is believed": believes_old_reports,
    "a rollout ends with its first host": ends_with_the_first_host,
    "a rollout ends before stable is back": ends_before_stable_is_back,
    "a host that got stable back is forgotten": forgets_that_it_gave_stable_back,
    "a host goes on with a release that has failed": goes_on_with_what_has_failed,
    "a rollout waits for ever": never_gives_up_on_a_host,
    "a host is done before it has settled": is_done_at_once,
}


@pytest.mark.parametrize("plant", BUGS.values(), ids=list(BUGS))
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the decisions does not outlive some dozens of seeds."""
    plant(monkeypatch)
    assert any(breach_of(seed) for seed in range(SEEDS)), f"not found in {SEEDS} seeds"
