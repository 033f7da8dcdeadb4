"""The root of the command line: which verbs there are, and how a command ends.

Rules: a verb's module is imported when its name is used; it gives a `command`, which returns its exit code (None is 0)
or raises a RollwayError. Usage errors look like every other error and exit 2.
"""

import importlib
from typing import Final

import rich_click as click
from click.exceptions import NoSuchCommand

from agent.cli.output import show_error
from agent.errors import UsageError

VERBS: Final = {
    "up": "agent.cli.up",
    "demo": "agent.cli.demo",
    "init": "agent.cli.init",
    "dev": "agent.cli.dev",
    "check": "agent.cli.check",
    "build": "agent.cli.build",
    "config": "agent.cli.config",
    "env": "agent.cli.env",
    "release": "agent.cli.release",
    "swap": "agent.cli.swap",
    "rollback": "agent.cli.rollback",
    "rollout": "agent.cli.rollout",
    "scale": "agent.cli.scale",
    "status": "agent.cli.status",
    "ps": "agent.cli.ps",
    "logs": "agent.cli.logs",
    "restart": "agent.cli.restart",
    "stop": "agent.cli.stop",
    "host": "agent.cli.host",
    "lease": "agent.cli.lease",
    "agent": "agent.cli.agent",
    "coordinator": "agent.cli.coordinator_run",
}
"""In the order in which one meets them."""


click.rich_click.TEXT_PARAGRAPH_LINEBREAKS = "\n\n"


class Verbs(click.RichGroup):
    """Commands by name, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(VERBS[cmd_name]).command
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand:
            raise NoSuchCommand(args[0], possibilities=VERBS, ctx=ctx) from None


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rollway", message="%(version)s")
def root() -> None:
    """Ship immutable releases to fleets of systemd hosts: swaps and rollbacks that no user feels.

    Begin with `rollway demo`, or with `rollway up` and an app of yours.

    Exit codes: 0 done, 1 failed, 2 wrong words or settings, 3 rolled back, 4 refused, 5 not found, 6 no answer.
    """


def run(words: list[str]) -> int:
    """Run one command line; gives its exit code."""
    try:
        code = root.main(args=words, prog_name="rollway", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "rollway"
        wrong = UsageError(error.format_message().rstrip("."), f"See `{command} --help`.")
        return show_error(wrong, as_json="--json" in words)
    except click.Abort:
        return 130
    return code if isinstance(code, int) else 0
