"""Names of instances on the command line, `web` or `web.1`, and whether an app has such ones."""

import argparse
from typing import TYPE_CHECKING

import rich_click as click

from agent.artifacts.sign import verify_release
from agent.cli.this_host import instances
from agent.errors import NotFoundError
from agent.model.environment import LOCAL_DEFAULTS, EnvironmentSettings
from agent.model.ids import AppName, EnvironmentName, HostName, ProcessName
from agent.settings.environment import load_environment

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator


class Instances(click.ParamType[tuple[ProcessName, int | None], str]):
    """`web` or `web.1`."""

    name = "type[.n]"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[ProcessName, int | None]:
        try:
            return instances(value)
        except argparse.ArgumentTypeError as error:
            self.fail(str(error), param, ctx)


async def check_instances(
    coordinator: "Coordinator", app: AppName, environment: EnvironmentName, process: ProcessName, slot: int | None
) -> None:
    """Raise NotFoundError for a process type or slot that neither a release declares nor a host reports."""
    known = await slots(coordinator, app, environment)
    if process not in known:
        raise NotFoundError(
            f"{app} has no process type {process} in {environment}",
            f"It has {', '.join(known)}." if known else f"Nothing of {app} ran there yet.",
        )
    if slot is not None and not 0 < slot <= known[process]:
        raise NotFoundError(
            f"{app} has no {process}.{slot} in {environment}",
            f"It has {', '.join(f'{process}.{number}' for number in range(1, known[process] + 1))}.",
        )


async def slots(coordinator: "Coordinator", app: AppName, environment: EnvironmentName) -> dict[ProcessName, int]:
    """How many slots each process type may have used: in a swap old and new instances stand side by side."""
    state = await coordinator.state(app, environment)
    releases = {release.release for release in (await coordinator.releases(app, environment))[-1:]}
    if state.runs is not None:
        releases.add(state.runs.name)
    file = (await coordinator.settings(app, environment)).file
    defaults = LOCAL_DEFAULTS if environment == "local" else EnvironmentSettings()
    scale = load_environment(file, f"settings of {environment}", defaults).scale
    known: dict[ProcessName, int] = {}
    for name in sorted(releases):
        envelope = (await coordinator.release(app, environment, name)).envelope
        for process in verify_release(envelope.encode()).spec.processes:
            count = 2 * scale.get(process.name, process.count)
            known[process.name] = max(count, known.get(process.name, 0))
    for instance in await coordinator.ps(app, environment):
        number = instance.instance.rpartition(".")[2]
        known[instance.process] = max(int(number) if number.isdigit() else 0, known.get(instance.process, 0))
    return known


async def check_host(coordinator: "Coordinator", host: HostName, environment: EnvironmentName) -> None:
    """Raise NotFoundError for a host that never connected, or does not serve the environment."""
    hosts = {known.host: known for known in (await coordinator.status()).hosts}
    if host not in hosts:
        raise NotFoundError(f"there is no host {host}", f"There are {', '.join(hosts)}." if hosts else "See `status`.")
    if environment not in hosts[host].environments:
        serve = [name for name, known in hosts.items() if environment in known.environments]
        raise NotFoundError(
            f"{host} does not serve {environment}", f"These do: {', '.join(serve)}." if serve else "No host does."
        )
