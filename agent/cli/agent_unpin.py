"""`rollway agent unpin`: the host follows again what is assigned; the end of `rollway agent rollback`."""

import argparse
from typing import Final

from agent.cli.output import show
from agent.cli.this_host import add_agent, add_app, chosen_agent
from agent.wire.control import WentBack

SUMMARY: Final = "Follow again what is assigned, after `rollback`."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_app(parser)
    add_agent(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 when it has begun; 4 where nothing was pinned."""
    query = {"app": arguments.app, "environment": arguments.environment}
    went = chosen_agent(arguments).ask("POST", "/v1/unpin", WentBack, query)
    show(f"{arguments.app} {went.environment} follows its assignment again: {went.release or 'nothing'}")
    return 0
