"""`rollway stop`: instances of this host stop, and stay stopped; by its agent, so on a host."""

import rich_click as click

from agent.cli.arguments import app_argument, environment_argument
from agent.cli.by_hand import Order, give
from agent.cli.instances import Instances
from agent.cli.side import agent_only, host_socket_option
from agent.model.ids import AppName, EnvironmentName, ProcessName


@click.command("stop")
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
    """Stop instances on this host: all, those of a type, or one.

    They drain, and stay stopped until `restart`, or until another release is swapped in.

    Example: rollway stop shop production worker.2
    """
    order = Order(verb="stop", app=app, environment=environment, instances=instances)
    return give(agent_only("stop", host_socket), order)
