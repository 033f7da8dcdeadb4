"""Which rollout somebody means: by its id, the beginning of one, by APP ENV, or because no other is under way."""

from typing import TYPE_CHECKING

from agent.client.answers import RolloutShown
from agent.errors import NotFoundError, RefusedError, UsageError
from agent.model import ids
from agent.model.ids import AppName, EnvironmentName, RolloutId
from agent.model.rollout import TERMINAL

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator


async def find(coordinator: "Coordinator", which: tuple[str, ...], *, live: bool = False) -> RolloutShown:
    """The rollout that the words `which` mean; with `live` never one that has ended, unless its id was given.

    Raises NotFoundError, UsageError; RefusedError where several could be meant, or none is under way.
    """
    match which:
        case ():
            return choose(await coordinator.rollouts(), "there has been no rollout yet", live=live)
        case (beginning,):
            return by_beginning(await coordinator.rollouts(), beginning) or await coordinator.rollout(
                RolloutId(beginning)
            )
        case (app, environment) if ids.is_name(app) and ids.is_name(environment):
            rollouts = await coordinator.rollouts(AppName(app), EnvironmentName(environment))
            return choose(rollouts, f"there has been no rollout of {app} in {environment} yet", live=live)
        case _:
            raise UsageError(f"cannot tell a rollout by {' '.join(which)!r}", "Give its ID, or APP ENV, or nothing.")


def choose(rollouts: list[RolloutShown], none: str, *, live: bool) -> RolloutShown:
    """Of rollouts, newest first, the only one under way, else the newest."""
    under_way = [rollout for rollout in rollouts if rollout.state not in TERMINAL]
    if len(under_way) > 1:
        listed = ", ".join(f"{r.id} ({r.app} {r.environment} to {r.release})" for r in under_way)
        raise RefusedError(f"{len(under_way)} rollouts are under way: {listed}", "Say which: its ID, or APP ENV.")
    if under_way:
        return under_way[0]
    if live:
        raise RefusedError("no rollout is under way", "See `rollway rollout list`.")
    if not rollouts:
        raise NotFoundError(none, "Begin one: rollway swap APP ENV RELEASE.")
    return rollouts[0]


def by_beginning(rollouts: list[RolloutShown], beginning: str) -> RolloutShown | None:
    """The only rollout whose id begins so; None where none does, for the list is that of the newest only."""
    found = [rollout for rollout in rollouts if rollout.id.startswith((beginning, f"r-{beginning}"))]
    exact = [rollout for rollout in found if rollout.id == beginning]
    if len(found) > 1 and not exact:
        raise UsageError(
            f"{len(found)} rollouts begin with {beginning!r}: {', '.join(rollout.id for rollout in found)}",
            "Give more of the id.",
        )
    return next(iter(exact or found), None)
