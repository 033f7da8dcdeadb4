"""`rollway up`: a fleet on this machine."""

import os
from pathlib import Path

import rich_click as click

from agent.cli.arguments import json_option
from agent.cli.output import show, show_json
from agent.local import layout, up


@click.command("up")
@click.option("--hosts", type=int, metavar="N", help="How many; as many as the last time, at first 3.")
@click.option("--dir", "folder", metavar="D", help="Where everything is kept, from one `up` to the next.")
@click.option("--net", metavar="CIDR", help="Loopback addresses of the hosts; else the first free 127.1x.0.0/24.")
@json_option
def command(*, hosts: int | None, folder: str | None, net: str | None, as_json: bool) -> None:
    """Run a coordinator and N agents on this machine until Ctrl-C, which drains everything.

    The first line says where they are and what to set ROLLWAY_CONFIG to; then come the log records of all apps.

    Examples: rollway up; rollway up --hosts 5 --dir /tmp/fleet --net 127.12.0.0/24
    """
    where = Path(folder) if folder is not None else layout.default_folder(os.environ)
    up.run(where, hosts, net, lambda ready: show_json(ready) if as_json else show(in_words(ready)))


def in_words(ready: up.Ready) -> str:
    hosts = ", ".join(f"{host.name} {host.address}" for host in ready.hosts)
    return (
        f"rollway is ready: {len(ready.hosts)} hosts ({hosts}), coordinator {ready.coordinator}; "
        f"export ROLLWAY_CONFIG={ready.config}"
    )
