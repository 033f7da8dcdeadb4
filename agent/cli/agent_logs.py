"""`rollway agent logs`: the newest log records of this host's instances, by its agent, and those to come."""

import argparse
from typing import Final

from agent.cli.by_hand import in_line, log_lines
from agent.cli.output import show
from agent.cli.this_host import add_agent, add_app, chosen_agent, instances

SUMMARY: Final = "Show what this host's instances wrote."
LINES: Final = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_app(parser)
    parser.add_argument("instances", type=instances, nargs="?", metavar="TYPE[.N]")
    parser.add_argument("-f", "--follow", action="store_true", help="Go on with each new record, until Ctrl-C.")
    parser.add_argument("-n", "--lines", type=int, default=LINES, help=f"At most (default: {LINES}).")
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print one JSON record per line.")
    add_agent(parser)


def run(arguments: argparse.Namespace) -> int:
    process, slot = arguments.instances or (None, None)
    lines = log_lines(
        chosen_agent(arguments),
        arguments.app,
        arguments.environment,
        process,
        slot,
        lines=max(0, arguments.lines),
        follow=arguments.follow,
    )
    for line in lines:
        show(in_line(line, as_json=arguments.as_json))
    return 0
