"""`rollway lease`: which host may run a singleton, and how a person moves one whose host is gone."""

import rich_click as click

from agent.cli.arguments import NAME, app_argument, environment_argument, json_option
from agent.cli.host import HOST
from agent.cli.output import remark, show, show_json, show_table
from agent.cli.session import ask
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName
from agent.model.units import show_duration


@click.group("lease")
def command() -> None:
    """Which host may run a singleton: at most one has the lease of it."""


@command.command("list")
@json_option
def list_leases(*, as_json: bool) -> None:
    """List who has which lease, and how long another host has to wait if its host says nothing more.

    Example: rollway lease list
    """
    leases = ask(lambda coordinator: coordinator.leases())
    if as_json:
        show_json(leases)
        return
    rows = [
        [
            *(one.app, one.environment, one.process, one.host, "connected" if one.connected else "away"),
            "for ever" if one.left_ms is None else show_duration(one.left_ms // 1000 * 1000),
        ]
        for one in leases
    ]
    show_table(["APP", "ENV", "PROCESS", "HOST", "LINK", "LEFT"], rows)


@command.command("release")
@app_argument
@environment_argument
@click.argument("process", type=NAME)
@click.option(
    "--host", type=HOST, required=True, help="Which has it, and does not run it any more: you answer for that."
)
@json_option
def release(app: str, environment: str, process: str, host: str, *, as_json: bool) -> None:
    """Give the lease of PROCESS to whoever asks next, at once: its host is off, or you have ended it there.

    Nobody checks that. It is the only way to move a singleton with on_partition = "keep" whose host is away; others
    move by themselves. One whose host is connected moves with: rollway agent drain, on the host.

    Example: rollway lease release shop production scheduler --host web1
    """
    name = AppName(app), EnvironmentName(environment), ProcessName(process)
    released = ask(lambda coordinator: coordinator.release_lease(*name, HostName(host)))
    if as_json:
        show_json(released)
        return
    show(f"{process} of {app} in {environment} is not {host}'s any more")
    remark("The next host that asks for it starts it: rollway lease list")
