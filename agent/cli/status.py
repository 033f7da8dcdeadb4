"""`rollway status`: what runs where, in one look."""

import rich_click as click

from agent.cli.arguments import json_option, only_app, only_environment
from agent.cli.moments import ago, read_iso
from agent.cli.output import show, show_json, show_table, words
from agent.cli.session import ask
from agent.client.answers import AppStatus
from agent.linux.clock import now
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
    now_ms = now().wall_ms
    show_table(
        ["APP", "ENV", "RELEASE", "STATE", "READY"],
        [[a.app, a.environment, a.release, state(a), ready(a)] for a in status.apps],
    )
    show("")
    show_table(
        ["HOST", "ADDRESS", "LINK", "SINCE"],
        [
            [host.host, host.address, "connected" if host.connected else "gone", ago(read_iso(host.since), now_ms)]
            for host in status.hosts
        ],
    )


def ready(app: AppStatus) -> str | None:
    """How many of how many are ready, as far as anybody can tell: nothing where no host is connected."""
    return None if app.unknown and not app.wanted else f"{app.ready}/{app.wanted}"


def state(app: AppStatus) -> str:
    """An app's state; of a rollout under way, where to and how far; and hosts that are outside of it, or away."""
    aside = "".join(f"; {host} is {why}" for host, why in app.aside.items())
    if app.unknown:
        aside += f"; not connected: {', '.join(app.unknown)}"
    if app.to is None:
        return f"{words(app.state)}{aside}"
    way = "from" if app.state == "rolling_back" else "to"
    return f"{words(app.state)} {way} {app.to}, {app.hosts_done or 0} of {app.hosts or 0} hosts{aside}"
