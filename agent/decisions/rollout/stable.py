"""The releases that an environment can go back to, newest last: how the stack changes, and what it leads back to.

Rules: only a release that was healthy to the end of its rollout is on it. A swap pushes; a rollback takes away
everything above its target, so that going back twice goes back twice as far. Each release is on it once, at its newest.
"""

from typing import Final

from agent.decisions.rollout.state import Ended
from agent.errors import FailedError
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, EnvironmentName
from agent.model.release import OrderKind

DEPTH_MAX: Final = 50

Stack = tuple[ReleaseRef, ...]


def after(stack: Stack, kind: OrderKind, ended: Ended) -> Stack:
    """The stack when a rollout of that kind has ended."""
    if ended.state != "done" or not ended.healthy or ended.runs is None:
        return stack
    if kind == "rollback" and ended.runs in stack:
        return stack[: stack.index(ended.runs) + 1]
    return (*(release for release in stack if release != ended.runs), ended.runs)[-DEPTH_MAX:]


def dead_end(app: AppName, environment: EnvironmentName, stack: Stack, runs: ReleaseRef | None) -> FailedError:
    """What to tell who asks for a rollback that has no target."""
    forward = f"Go forward instead: `rollway swap {app} {environment} RELEASE`."
    if runs is not None and runs in stack:
        return FailedError(
            f"{runs.name} is the oldest healthy release of {app} in {environment}: there is nothing to go back to",
            forward,
        )
    return FailedError(f"nothing to roll back to: no release of {app} was ever healthy in {environment}", forward)


def target(stack: Stack, runs: ReleaseRef | None) -> ReleaseRef | None:
    """Where a rollback from `runs` leads: the healthy release before it, or the newest where it never was healthy."""
    below = stack[: stack.index(runs)] if runs is not None and runs in stack else stack
    return below[-1] if below else None
