"""`rollway coordinator …`: the role that walks the fleet through rollouts."""

import os
from pathlib import Path

import rich_click as click

from agent.cli.arguments import json_option
from agent.cli.output import remark, show, show_json
from agent.cli.role import run_role, write_context
from agent.client.context import config_folder


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


@command.command("context")
@click.option("--config", "file", required=True, help="Its coordinator.toml.")
@click.option("--output", help="The folder to write to; left out: rollway in your config folder.")
@json_option
def context(file: str, output: str | None, *, as_json: bool) -> None:
    """Let this user command the coordinator of this machine: write a client.toml and the CA's certificate.

    The token is the coordinator's first, an admin's: take the folder to your own machine, and guard it. The coordinator
    must have been started once.

    Example: rollway coordinator context --config /etc/rollway/coordinator.toml
    """
    folder = Path(output).absolute() if output else config_folder(os.environ)
    written = write_context(file, folder)
    if as_json:
        show_json({"config": str(written)})
    else:
        show(f"{written} is written")
        if output:
            remark(f"Use it: export ROLLWAY_CONFIG={written}")
