"""`rollway coordinator …`: the role that walks the fleet through rollouts."""

import rich_click as click

from agent.cli.role import run_role


@click.group("coordinator")
def command() -> None:
    """The role that walks a fleet of agents through rollouts."""


@command.command("run")
@click.option("--config", "file", required=True, help="Its coordinator.toml.")
def run(file: str) -> int:
    """Be a coordinator, until SIGTERM. The hosts go on without it.

    Example: rollway coordinator run --config /etc/rollway/coordinator.toml
    """
    return run_role("coordinator", file)
