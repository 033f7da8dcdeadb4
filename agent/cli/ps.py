"""`rollway ps`: every instance."""

import rich_click as click

from agent.cli.arguments import json_option, only_app, only_environment
from agent.cli.output import show_json, show_table
from agent.cli.session import ask
from agent.model.ids import AppName, EnvironmentName


@click.command("ps")
@only_app
@only_environment
@json_option
def command(app: AppName | None, environment: EnvironmentName | None, *, as_json: bool) -> None:
    """Show the instances of all apps, or of one.

    Examples: rollway ps; rollway ps shop local --json
    """
    instances = ask(lambda coordinator: coordinator.ps(app, environment))
    if as_json:
        show_json(instances)
        return
    show_table(
        ["HOST", "APP", "ENVIRONMENT", "RELEASE", "INSTANCE", "PID", "STATE", "SINCE", "RESTARTS", "WHY"],
        [
            [i.host, i.app, i.environment, i.release, i.instance, i.pid, i.state, i.since, i.restarts, i.detail]
            for i in instances
        ],
    )
