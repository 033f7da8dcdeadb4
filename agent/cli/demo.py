"""`rollway demo`: the promise, kept before one's eyes."""

import rich_click as click

from agent.cli.output import on_terminal


@click.command("demo")
def command() -> int:
    """Show it all: a fleet on this machine, swaps under load, kills, a bad release undone; then the figures.

    Everything lives in a temporary folder and is gone afterwards. Exit code 0 only if every proof held.

    Example: rollway demo
    """
    from agent.local.demo import run  # noqa: PLC0415 - `--help` need not wait for it

    return run(live=on_terminal())
