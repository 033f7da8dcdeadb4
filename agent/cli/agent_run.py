"""`rollway agent run`: be this host's agent, until SIGTERM."""

import argparse
from typing import Final

from agent.cli.role import run_role

SUMMARY: Final = "Be this host's agent, until SIGTERM."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="Its agent.toml.")


def run(arguments: argparse.Namespace) -> int:
    return run_role("agent", arguments.config)
