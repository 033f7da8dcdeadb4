"""`rollway agent rollback`: back to the release before on this host alone, by its agent, and stay there."""

import argparse
from typing import Final

from agent.cli.output import show
from agent.cli.this_host import add_agent, add_app, chosen_agent
from agent.wire.control import WentBack

SUMMARY: Final = "Go back on this host to the release before, and stay there until `unpin`."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_app(parser)
    add_agent(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 when it has begun; 1 where there is nothing to go back to."""
    query = {"app": arguments.app, "environment": arguments.environment}
    went = chosen_agent(arguments).ask("POST", "/v1/rollback", WentBack, query)
    show(f"{arguments.app} {went.environment} is pinned to {went.release} on this host: see `rollway agent ps`")
    show(f"assignments do not count here until `rollway agent unpin {arguments.app} {went.environment}`")
    return 0
