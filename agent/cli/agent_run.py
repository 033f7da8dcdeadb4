"""`rollway agent …`: the role that supervises one host."""

import rich_click as click

from agent.cli.agent_join import run_join
from agent.cli.role import run_role


@click.group("agent")
def command() -> None:
    """The role that supervises the processes of one host."""


@command.command("run")
@click.option("--config", "file", required=True, help="Its agent.toml.")
def run(file: str) -> int:
    """Be this host's agent, until SIGTERM: then every app is drained.

    Example: rollway agent run --config /etc/rollway/agent.toml
    """
    return run_role("agent", file)


@command.command("join", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def join(words: tuple[str, ...]) -> int:
    """Bring this host into a fleet, by a token of `rollway host token`; it needs no library of the command line.

    Example: rollway agent join rollway-host-1.eyJ…
    """
    return run_join(list(words))
