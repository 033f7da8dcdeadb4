"""`rollway ps`: every instance."""

import rich_click as click

from agent.cli.arguments import json_option, only_app, only_environment
from agent.cli.by_hand import ps, show_instances
from agent.cli.session import ask
from agent.cli.side import agent_asked, host_socket_option
from agent.model.ids import AppName, EnvironmentName


@click.command("ps")
@only_app
@only_environment
@host_socket_option
@json_option
def command(
    app: AppName | None, environment: EnvironmentName | None, host_socket: str | None, *, as_json: bool
) -> None:
    """Show the instances of all apps, or of one.

    Examples: rollway ps; rollway ps shop local --json
    """
    agent = agent_asked(host_socket)
    if agent is not None:
        ps(agent, app, environment, as_json=as_json)
        return
    show_instances(ask(lambda coordinator: coordinator.ps(app, environment)), as_json=as_json)
