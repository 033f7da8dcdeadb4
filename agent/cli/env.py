"""`rollway env`: an environment's settings, and which environments there are."""

from pathlib import Path

import rich_click as click

from agent.cli.arguments import app_argument, environment_argument, json_option
from agent.cli.output import show, show_json
from agent.cli.session import ask
from agent.errors import UsageError
from agent.model.environment import LOCAL_DEFAULTS, EnvironmentSettings
from agent.model.ids import AppName, EnvironmentName
from agent.settings.environment import load_environment


@click.group("env")
def command() -> None:
    """Settings of an app in an environment: hosts, counts, addresses, pace of rollouts."""


@command.command("list")
@app_argument
@json_option
def list_environments(app: AppName, *, as_json: bool) -> None:
    """Name the environments of APP.

    Example: rollway env list shop
    """
    environments = ask(lambda coordinator: coordinator.environments(app))
    if as_json:
        show_json([{"app": app, "environment": environment} for environment in environments])
    else:
        for environment in environments:
            show(environment)


@command.command("show")
@app_argument
@environment_argument
@json_option
def show_environment(app: AppName, environment: EnvironmentName, *, as_json: bool) -> None:
    """Show the settings file of ENVIRONMENT; with --json, what it means, defaults included.

    Example: rollway env show shop production
    """
    settings = ask(lambda coordinator: coordinator.settings(app, environment))
    if as_json:
        show_json({"app": app, "environment": environment, "file": settings.file, "settings": settings.settings})
    else:
        show(settings.file.rstrip("\n") or f"# {environment} has no settings of its own: the defaults hold.")


@command.command("set")
@app_argument
@environment_argument
@click.option("--file", required=True, help="A TOML file; config/production.toml is a complete example.")
@json_option
def set_environment(app: AppName, environment: EnvironmentName, file: str, *, as_json: bool) -> None:
    """Replace the settings of ENVIRONMENT, which becomes known by it. They hold from the next rollout on.

    Example: rollway env set shop production --file production.toml
    """
    text = read_text(file)
    load_environment(text, file, LOCAL_DEFAULTS if environment == "local" else EnvironmentSettings())
    settings = ask(lambda coordinator: coordinator.set_settings(app, environment, text))
    if as_json:
        show_json({"app": app, "environment": environment, "file": settings.file, "settings": settings.settings})
    else:
        show(f"{app} {environment} is set as {file} says, from the next rollout on")


def read_text(file: str) -> str:
    """The text of a file that somebody named; raises UsageError."""
    try:
        return Path(file).read_text()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read {file}: {reason}", "Name a text file that you can read.") from error
