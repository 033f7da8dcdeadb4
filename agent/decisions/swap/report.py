"""What a host says of one app and environment: which release, how far, and every instance."""

from collections.abc import Iterator
from typing import Final

from agent.decisions.swap import lease
from agent.decisions.swap.hand import aim
from agent.decisions.swap.state import InstanceView, SwapState
from agent.model.assignment import AppReport, InstanceReport

BY_A_PERSON: Final = "stopped by a person; `restart` starts it again"


def report(state: SwapState) -> AppReport:
    """What the coordinator is told. There must be an assignment."""
    assignment, held = aim(state), state.assignment
    if assignment is None or held is None:
        raise ValueError("nothing is assigned, so there is nothing to report")
    return AppReport(
        app=assignment.app,
        environment=assignment.environment,
        generation=held.generation,
        release=assignment.release.name if assignment.release else None,
        state=state.phase,
        reason=state.reason,
        prepared=state.prepared,
        admin=state.admin,
        instances=(*(_shown(view) for view in state.instances), *_halted(state), *_without_lease(state)),
        aside="pinned" if state.pin else "",
    )


def _shown(view: InstanceView) -> InstanceReport:
    return InstanceReport(
        process=view.process,
        slot=view.slot,
        release=view.release,
        state=view.state,
        pid=view.pid,
        since_ms=view.since.wall_ms,
        restarts=view.restarts,
        start_ms=view.start_ms,
        detail=view.detail,
    )


def _halted(state: SwapState) -> Iterator[InstanceReport]:
    """Places that a person has emptied: nobody is to wonder where their instances are."""
    assignment = aim(state)
    there = {(view.process, view.slot) for view in state.instances}
    for halt in state.halts:
        if assignment is not None and assignment.release is not None and (halt.process, halt.slot) not in there:
            yield InstanceReport(
                process=halt.process,
                slot=halt.slot,
                release=assignment.release.name,
                state="stopped",
                pid=None,
                since_ms=halt.since.wall_ms,
                restarts=0,
                detail=BY_A_PERSON,
            )


def _without_lease(state: SwapState) -> Iterator[InstanceReport]:
    """Singletons that nobody is known to run: it is to be seen why."""
    assignment = aim(state)
    for process, why in lease.without(state):
        if assignment is not None and assignment.release is not None:
            yield InstanceReport(
                process=process,
                slot=1,
                release=assignment.release.name,
                state="stopped",
                pid=None,
                since_ms=state.armed.wall_ms if state.armed else 0,
                restarts=0,
                detail=why,
            )
