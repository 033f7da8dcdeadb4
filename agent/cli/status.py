"""`rollway status`: what runs where, in one look."""

import rich_click as click

from agent.cli.arguments import json_option, only_app, only_environment
from agent.cli.output import show_json, show_table
from agent.cli.session import ask
from agent.model.ids import AppName, EnvironmentName


@click.command("status")
@only_app
@only_environment
@json_option
def command(app: AppName | None, environment: EnvironmentName | None, *, as_json: bool) -> None:
    """Show each app's release, how much of it is ready, and the hosts.

    Examples: rollway status; rollway status shop production
    """
    status = ask(lambda coordinator: coordinator.status(app, environment))
    if as_json:
        show_json(status)
        return
    show_table(
        ["APP", "ENVIRONMENT", "RELEASE", "STATE", "READY"],
        [[a.app, a.environment, a.release, a.state, f"{a.ready}/{a.wanted}"] for a in status.apps],
    )
    show_table(
        ["HOST", "ADDRESS", "LINK"],
        [[host.host, host.address, "connected" if host.connected else "gone"] for host in status.hosts],
    )
