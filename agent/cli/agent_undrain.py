"""`rollway agent undrain`: let this host run again what it is assigned; the other word for `rollway agent drain`."""

import argparse
from pathlib import Path
from typing import Final

from agent.cli.output import show
from agent.cli.this_host import add_config, agent_of, settings
from agent.client.agent import AgentGoneError
from agent.host import drained

SUMMARY: Final = "Run again what this host is assigned, after a drain."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 also where the host was not drained."""
    chosen = settings(arguments.config)
    try:
        agent_of(chosen).ask("POST", "/v1/undrain", dict[str, object])
        show("not drained any more: the agent starts what is assigned")
    except AgentGoneError:
        drained.take_away(Path(chosen.run_dir))
        show("not drained any more: the next agent starts what is assigned")
    return 0
