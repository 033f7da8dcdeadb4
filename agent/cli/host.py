"""`rollway host`: the hosts of the fleet, how one comes in, how it is labelled, how it goes."""

import rich_click as click

from agent.cli.arguments import NAME, Word, json_option
from agent.cli.moments import ago, read_iso
from agent.cli.output import remark, show, show_json, show_table
from agent.cli.session import ask
from agent.errors import UsageError
from agent.linux.clock import now
from agent.model import ids
from agent.model.ids import HostName
from agent.model.units import parse_duration

HOST = Word("host", ids.is_host_name, "a host name of a-z, 0-9, '-' and '.'")

host_argument = click.argument("host", type=HOST)


@click.group("host")
def command() -> None:
    """The hosts of the fleet: bring one in, label it, take it out."""


@command.command("token")
@click.option("--environment", "environments", type=NAME, multiple=True, required=True, help="That the host serves.")
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, help="That the host has.")
@click.option("--name", type=HOST, help="The only name that it may join by; left out: its own choice.")
@click.option("--ttl", default="1h", show_default=True, help="How long the token is good.")
@json_option
def make_token(
    environments: tuple[str, ...], labels: tuple[str, ...], name: str | None, ttl: str, *, as_json: bool
) -> None:
    """Print a token that brings one host in, with these environments and labels whatever the host says.

    Whoever has the token can be that host until it is used or expires: give it to nobody else.

    Example: rollway host token --environment production --label zone=a --name web1
    """
    try:
        ttl_ms = parse_duration(ttl)
    except ValueError as error:
        raise UsageError(f"--ttl: expected {error}, found {ttl!r}", "Give another --ttl.") from None
    changes = _changes(labels, may_remove=False)
    wanted = {key: value for key, value in changes.items() if value is not None}
    made = ask(lambda coordinator: coordinator.new_host_token(environments, wanted, name or "", ttl_ms))
    if as_json:
        show_json(made)
        return
    show(made.token)
    remark(f"Good for one host until {made.expires}. On it: rollway agent join TOKEN")


@command.command("list")
@json_option
def list_hosts(*, as_json: bool) -> None:
    """List the hosts, those too that have joined and not connected yet.

    Example: rollway host list
    """
    hosts = ask(lambda coordinator: coordinator.hosts())
    if as_json:
        show_json(hosts)
        return
    now_ms = now().wall_ms
    rows = [
        [
            *(host.host, "connected" if host.connected else "away", ago(read_iso(host.since), now_ms)),
            *(", ".join(host.environments), _shown(host.labels), host.address, host.version),
        ]
        for host in hosts
    ]
    show_table(["HOST", "STATE", "SINCE", "ENVIRONMENTS", "LABELS", "ADDRESS", "VERSION"], rows)


@command.command("label")
@host_argument
@click.argument("labels", metavar="KEY=VALUE|KEY-…", nargs=-1, required=True)
@json_option
def label(host: str, labels: tuple[str, ...], *, as_json: bool) -> None:
    """Set labels of HOST, KEY- removing one. Environments that choose hosts by label see it at once.

    Example: rollway host label web1 zone=b canary-
    """
    changes = _changes(labels, may_remove=True)
    changed = ask(lambda coordinator: coordinator.label_host(HostName(host), changes))
    if as_json:
        show_json(changed)
    else:
        show(f"{host}: {_shown(changed.labels) or 'no labels'}")


@command.command("remove")
@host_argument
@json_option
def remove(host: str, *, as_json: bool) -> None:
    """Take HOST out of the fleet: its certificate is refused from now on, no rollout waits for it.

    What runs on it runs on, after a boot too, until its units are ended there, which drains it: systemctl disable
    --now rollway-apps rollway-agent.

    Example: rollway host remove web1
    """
    removed = ask(lambda coordinator: coordinator.remove_host(HostName(host)))
    if as_json:
        show_json(removed)
        return
    show(f"{host} is out of the fleet; what runs on it runs on, after a boot too")
    remark("To end it, on the host: systemctl disable --now rollway-apps rollway-agent")
    served = ", ".join(removed.environments)
    if served:
        remark(
            f"It could read the secrets of: {served}. If it is not yours any more, change them where they are valid."
        )


def _changes(words: tuple[str, ...], *, may_remove: bool) -> dict[str, str | None]:
    changes: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        removes = may_remove and not equals and word.endswith("-")
        key = word.removesuffix("-") if removes else key
        if not ids.is_name(key) or not (removes or value):
            raise UsageError(f"expected KEY=VALUE{' or KEY-' if may_remove else ''}, found {word!r}", "Write it so.")
        changes[key] = None if removes else value
    return changes


def _shown(labels: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(labels.items()))
