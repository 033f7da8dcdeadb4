"""`rollway rollout`: what is under way and what was, and a word to it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import rich_click as click

from agent.cli.arguments import json_option, only_app, only_environment
from agent.cli.changes import Lines
from agent.cli.moments import ago, in_full, read_iso
from agent.cli.output import show, show_json, show_table, words
from agent.cli.progress import follow
from agent.cli.session import ask
from agent.cli.swap import show_end
from agent.cli.which import find
from agent.client.answers import RolloutShown
from agent.linux.clock import now
from agent.model.ids import AppName, EnvironmentName

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator

which_argument = click.argument("which", metavar="[ID | APP ENV]", nargs=-1)


@click.group("rollout")
def command() -> None:
    """Rollouts: the fleet going from one release to another.

    Without an ID (its beginning will do) or APP ENV the one that is under way is meant; show and watch take the
    newest where none is.
    """


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
    now_ms = now().wall_ms
    show_table(
        ["ID", "APP", "ENV", "FROM", "TO", "STATE", "CREATED", "BY", "WHY"],
        [
            [
                *(r.id, r.app, r.environment, r.previous, r.release, words(r.state)),
                *(ago(read_iso(r.created), now_ms), r.asked_by, r.reason),
            ]
            for r in rollouts
        ],
    )


@command.command("show")
@which_argument
@json_option
def show_rollout(which: tuple[str, ...], *, as_json: bool) -> None:
    """Show where a rollout is, host by host.

    Examples: rollway rollout show; rollway rollout show shop local; rollway rollout show r-3f
    """
    found = ask(lambda coordinator: find(coordinator, which))
    if as_json:
        show_json(found)
        return
    began_ms = read_iso(found.created)
    began = f", begun {in_full(began_ms)}" if began_ms is not None else ""
    show(f"{found.app} {found.environment} {found.previous or 'nothing'} -> {found.release}, {found.strategy}{began}")
    for line in (*Lines().changes(found), *slow_starts(found)):
        show(line)


def slow_starts(rollout: RolloutShown) -> Iterator[str]:
    """A warning for each instance that took long to become ready: so long every swap waits for it."""
    for host in rollout.hosts:
        for name, start_ms in sorted(host.slow_starts_ms.items()):
            yield f"warning: {name} on {host.host} took {start_ms // 1000} s to become ready"


@command.command("watch")
@which_argument
@click.option("--strict", is_flag=True, help="Fail (1) when hosts could not be reached.")
@json_option
def watch(which: tuple[str, ...], *, strict: bool, as_json: bool) -> int:
    """Follow a rollout to its end; exit codes as those of swap.

    Example: rollway rollout watch
    """

    async def run(coordinator: "Coordinator") -> int:
        rollout = await follow(coordinator, await find(coordinator, which), quiet=as_json)
        return await show_end(coordinator, rollout, strict=strict, as_json=as_json)

    return ask(run)


def _word(word: str, meaning: str, done: str) -> None:
    @command.command(word, help=f"{meaning}\n\nExample: rollway rollout {word}")
    @which_argument
    @json_option
    def tell(which: tuple[str, ...], *, as_json: bool) -> None:
        async def run(coordinator: "Coordinator") -> RolloutShown:
            return await coordinator.tell_rollout((await find(coordinator, which, live=True)).id, word)

        told = ask(run)
        if as_json:
            show_json(told)
        else:
            show(f"the rollout of {told.release} {done}: {words(told.state)}")


_word("abort", "End a rollout: the hosts that were swapped go back to stable.", "ends")
_word("pause", "Let a rollout begin no other host until it is resumed.", "waits")
_word("resume", "Let a paused rollout go on.", "goes on")
