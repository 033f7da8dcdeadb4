"""`rollway agent VERB`: the verbs of one host, without the command line's libraries, which a host does not install.

Rules: one module per verb, imported when the words are read; it gives a `SUMMARY`, `add_arguments(parser)`, and
`run(arguments)`, which returns the exit code or raises a RollwayError. What the role itself needs is imported by `run`.
"""

import argparse
import importlib
from collections.abc import Sequence
from typing import Final, NoReturn

from agent.errors import UsageError

VERBS: Final = {
    "join": "agent.cli.agent_join",
    "run": "agent.cli.agent_run",
    "check": "agent.cli.agent_check",
    "balancer": "agent.cli.agent_balancer",
    "drain": "agent.cli.agent_drain",
    "undrain": "agent.cli.agent_undrain",
    "rollback": "agent.cli.agent_rollback",
    "unpin": "agent.cli.agent_unpin",
    "ps": "agent.cli.agent_ps",
    "logs": "agent.cli.agent_logs",
    "restart": "agent.cli.agent_restart",
    "stop": "agent.cli.agent_stop",
}
"""In the order in which one meets them."""
WITHOUT_LIBRARIES: Final = frozenset({"ps", "logs", "restart", "stop"})
"""What `rollway VERB` means on a host that has no command line libraries: `rollway agent VERB`."""
EXAMPLE: Final = "Example: rollway agent run --config /etc/rollway/agent.toml"


class Parser(argparse.ArgumentParser):
    """Wrong words are an error like every other."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"See `{self.prog} --help`.")


def run(words: Sequence[str]) -> int:
    """Run what comes after `rollway agent`; gives its exit code."""
    parser = Parser(
        prog="rollway agent",
        description="The role that supervises the processes of one host, and what a person there may ask of it.",
        epilog=EXAMPLE,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    named = words[:1] if words and words[0] in VERBS else VERBS
    for name in named:
        verb = importlib.import_module(VERBS[name])
        parser_of_verb = verbs.add_parser(name, help=verb.SUMMARY, description=verb.__doc__, allow_abbrev=False)
        verb.add_arguments(parser_of_verb)
        parser_of_verb.set_defaults(run=verb.run)
    try:
        arguments = parser.parse_args(words)
    except SystemExit:  # the help was shown
        return 0
    code: int = arguments.run(arguments)
    return code
