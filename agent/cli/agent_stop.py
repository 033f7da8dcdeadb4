"""`rollway agent stop`: drain instances of this host, by its agent; they stay stopped."""

import argparse
from typing import Final

from agent.cli.by_hand import Order, give
from agent.cli.this_host import add_agent, add_app, chosen_agent, duration, instances

SUMMARY: Final = "Stop instances of this host; they stay stopped until `restart` or another release."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_app(parser)
    parser.add_argument("instances", type=instances, nargs="?", metavar="TYPE[.N]", help="Without it: all of them.")
    parser.add_argument("--timeout", type=duration, metavar="DURATION", help="Wait no longer; it goes on all the same.")
    add_agent(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 when it is done; 1 when it does not come to its end."""
    order = Order(
        verb="stop",
        app=arguments.app,
        environment=arguments.environment,
        instances=arguments.instances,
        timeout_ms=arguments.timeout,
    )
    return give(chosen_agent(arguments), order)
