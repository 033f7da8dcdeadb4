"""`rollway ps`: every instance."""

from typing import TYPE_CHECKING

import rich_click as click

from agent.cli.arguments import json_option, only_app, only_environment
from agent.cli.by_hand import ps, show_instances
from agent.cli.output import remark
from agent.cli.session import ask
from agent.cli.side import agent_asked, host_socket_option
from agent.client.answers import HostStatus
from agent.model.ids import AppName, EnvironmentName
from agent.wire.control import Row

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator


@click.command("ps")
@only_app
@only_environment
@click.option("--wide", is_flag=True, help="Show also how long each took to start, CPU, memory, threads, open files.")
@host_socket_option
@json_option
def command(
    app: AppName | None, environment: EnvironmentName | None, host_socket: str | None, *, wide: bool, as_json: bool
) -> None:
    """Show the instances of all apps, or of one.

    CPU is that of one processor since somebody looked before, or since the instance was started.

    Examples: rollway ps; rollway ps --wide; rollway ps shop local --json
    """
    agent = agent_asked(host_socket)
    if agent is not None:
        ps(agent, app, environment, as_json=as_json, wide=wide)
        return
    if as_json:
        show_instances(ask(lambda coordinator: coordinator.ps(app, environment, figures=True)), as_json=True)
        return
    instances, hosts = ask(lambda coordinator: _seen(coordinator, app, environment, wide=wide))
    show_instances(instances, as_json=False, wide=wide)
    away = ", ".join(host.host for host in hosts if not host.connected and _may_serve(host, environment))
    if away:
        remark(f"rollway: not connected, so that what runs there is not known: {away}")


async def _seen(
    coordinator: "Coordinator", app: AppName | None, environment: EnvironmentName | None, *, wide: bool
) -> tuple[list[Row], tuple[HostStatus, ...]]:
    return await coordinator.ps(app, environment, figures=wide), (await coordinator.status(app, environment)).hosts


def _may_serve(host: HostStatus, environment: EnvironmentName | None) -> bool:
    return environment is None or environment in host.environments
