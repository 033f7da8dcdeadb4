"""`rollway agent …`: the role that supervises one host."""

import rich_click as click

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
