"""`rollway demo`: the promise, kept before one's eyes."""

import rich_click as click

from agent.cli.arguments import json_option
from agent.cli.output import on_terminal, show_json
from agent.errors import FailedError


@click.command("demo")
@json_option
def command(*, as_json: bool) -> int:
    """Show it all: a fleet on this machine, swaps under load, kills, a bad release undone; then the figures.

    Everything lives in a temporary folder and is gone afterwards. Exit code 0 only if every proof held.

    Example: rollway demo
    """
    from agent.local.demo import run  # noqa: PLC0415 - `--help` need not wait for it

    result = run(live=on_terminal() and not as_json, beside=as_json)
    if result is None:
        return 130
    if as_json:
        show_json(result)
    return 0 if result.held else FailedError.exit_code
