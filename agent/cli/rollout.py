"""`rollway rollout`: what is under way and what was, and a word to it."""

from typing import TYPE_CHECKING

import rich_click as click

from agent.cli.arguments import json_option, only_app, only_environment
from agent.cli.output import show, show_json, show_table
from agent.cli.progress import Lines, follow
from agent.cli.session import ask
from agent.cli.swap import show_end
from agent.client.answers import RolloutShown
from agent.errors import NotFoundError
from agent.model.ids import AppName, EnvironmentName, RolloutId

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator

id_argument = click.argument("rollout", metavar="[ID]", required=False)


@click.group("rollout")
def command() -> None:
    """Rollouts: the fleet going from one release to another. Without an ID the newest is meant."""


@command.command("list")
@only_app
@only_environment
@json_option
def list_rollouts(app: AppName | None, environment: EnvironmentName | None, *, as_json: bool) -> None:
    """List rollouts, newest first.

    Examples: rollway rollout list; rollway rollout list shop production --json
    """
    rollouts = ask(lambda coordinator: coordinator.rollouts(app, environment))
    if as_json:
        show_json(rollouts)
        return
    show_table(
        ["ID", "APP", "ENVIRONMENT", "FROM", "TO", "STATE", "CREATED", "BY", "WHY"],
        [
            [r.id, r.app, r.environment, r.previous, r.release, r.state, r.created, r.asked_by, r.reason]
            for r in rollouts
        ],
    )


@command.command("show")
@id_argument
@json_option
def show_rollout(rollout: RolloutId | None, *, as_json: bool) -> None:
    """Show where a rollout is, host by host.

    Example: rollway rollout show
    """
    found = ask(lambda coordinator: find(coordinator, rollout))
    if as_json:
        show_json(found)
        return
    show(f"{found.app} {found.environment}: {found.previous or 'nothing'} -> {found.release}, {found.strategy}")
    for line in Lines().changes(found):
        show(line)


@command.command("watch")
@id_argument
@click.option("--strict", is_flag=True, help="Fail (1) when hosts could not be reached.")
@json_option
def watch(rollout: RolloutId | None, *, strict: bool, as_json: bool) -> int:
    """Follow a rollout to its end; exit codes as those of swap.

    Example: rollway rollout watch
    """

    async def run(coordinator: "Coordinator") -> RolloutShown:
        return await follow(coordinator, await find(coordinator, rollout), quiet=as_json)

    return show_end(ask(run), strict=strict, as_json=as_json)


def _word(word: str, meaning: str, done: str) -> None:
    @command.command(word, help=f"{meaning}\n\nExample: rollway rollout {word}")
    @id_argument
    @json_option
    def tell(rollout: RolloutId | None, *, as_json: bool) -> None:
        async def run(coordinator: "Coordinator") -> RolloutShown:
            return await coordinator.tell_rollout((await find(coordinator, rollout)).id, word)

        told = ask(run)
        if as_json:
            show_json(told)
        else:
            show(f"the rollout of {told.release} {done}: {told.state.replace('_', ' ')}")


_word("abort", "End a rollout: the hosts that were swapped go back to stable.", "ends")
_word("pause", "Let a rollout begin no other host until it is resumed.", "waits")
_word("resume", "Let a paused rollout go on.", "goes on")


async def find(coordinator: "Coordinator", rollout: RolloutId | None) -> RolloutShown:
    """The rollout of that id, else the newest."""
    if rollout is not None:
        return await coordinator.rollout(rollout)
    rollouts = await coordinator.rollouts()
    if not rollouts:
        raise NotFoundError("there has been no rollout yet", "Begin one: rollway swap APP ENV RELEASE.")
    return rollouts[0]
