"""`rollway ps`: every instance."""

import rich_click as click

from agent.cli.arguments import json_option, only_app, only_environment
from agent.cli.moments import ago, read_iso
from agent.cli.output import show_json, show_table, words
from agent.cli.session import ask
from agent.linux.clock import now
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
    now_ms = now().wall_ms
    show_table(
        ["HOST", "APP", "ENV", "RELEASE", "INSTANCE", "PID", "STATE", "SINCE", "RESTARTS", "WHY"],
        [
            [
                *(i.host, i.app, i.environment, i.release, i.instance, i.pid, words(i.state)),
                *(ago(read_iso(i.since), now_ms), i.restarts, i.detail),
            ]
            for i in instances
        ],
    )
