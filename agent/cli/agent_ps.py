"""`rollway agent ps`: the instances of this host, by its agent."""

import argparse
from typing import Final

from agent.cli.by_hand import ps
from agent.cli.this_host import add_agent, chosen_agent, name

SUMMARY: Final = "Show the instances of this host."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("app", type=name, nargs="?", metavar="APP")
    parser.add_argument("environment", type=name, nargs="?", metavar="ENV")
    parser.add_argument("--wide", action="store_true", help="Show also start time, CPU, memory, threads, open files.")
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON, for scripts.")
    add_agent(parser)


def run(arguments: argparse.Namespace) -> int:
    agent = chosen_agent(arguments)
    ps(agent, arguments.app, arguments.environment, as_json=arguments.as_json, wide=arguments.wide)
    return 0
