"""`rollway agent …` as the root's help lists it; the words themselves are read by `agent_main`."""

import rich_click as click

from agent.cli.agent_main import run


@click.command("agent", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def command(words: tuple[str, ...]) -> int:
    """Be the agent of this host, or act on it: `rollway agent --help`."""
    return run(words)
