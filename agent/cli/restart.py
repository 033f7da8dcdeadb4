"""`rollway restart`: fresh instances on this host; by its agent, so on a host."""

import rich_click as click

from agent.cli.arguments import app_argument, environment_argument
from agent.cli.by_hand import Order, give
from agent.cli.instances import Instances
from agent.cli.side import agent_only, host_socket_option
from agent.model.ids import AppName, EnvironmentName, ProcessName


@click.command("restart")
@app_argument
@environment_argument
@click.argument("instances", type=Instances(), required=False, metavar="[TYPE[.N]]")
@host_socket_option
def command(
    app: AppName,
    environment: EnvironmentName,
    instances: tuple[ProcessName, int | None] | None,
    host_socket: str | None,
) -> int:
    """Restart instances on this host: all, those of a type, or one.

    Start-first types drop no request: a fresh instance is ready before an old one goes. What was stopped is started.

    Example: rollway restart shop production web
    """
    order = Order(verb="restart", app=app, environment=environment, instances=instances)
    return give(agent_only("restart", host_socket), order)
