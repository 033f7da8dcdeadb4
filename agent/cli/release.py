"""`rollway release`: a build with an environment's config, named, never modified.

The release is made and sealed here, on the operator's machine: the coordinator keeps it and cannot change it.
"""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import rich_click as click

from agent.artifacts.manifest import read_manifest
from agent.artifacts.sign import seal, verify_release
from agent.cli.arguments import RELEASE, app_argument, environment_argument, json_option, path_option
from agent.cli.build import build_and_upload, find_build
from agent.cli.output import show, show_json, show_table, time_of
from agent.cli.session import ask
from agent.client.answers import Config, ReleaseMade
from agent.client.secret import encrypt
from agent.errors import RefusedError, UsageError
from agent.linux.clock import now
from agent.model.build import Build
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName
from agent.model.release import ConfigValue, Release
from agent.wire.canonical import digest_of

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator

_VERSION: Final = re.compile(r"v?(\d+\.\d+\.\d+)")


@click.group("release")
def command() -> None:
    """Releases: what can be swapped to, and rolled back to."""


@command.command("create")
@app_argument
@environment_argument
@click.option("--build", help="An id, the beginning of one, or a version.")
@click.option("--ref", help="Build this commit, tag or branch first.")
@path_option
@click.option("--name", type=RELEASE, help="Else v1.2.3 by the build's version, or by the minute.")
@json_option
def create(
    app: AppName,
    environment: EnvironmentName,
    *,
    build: str | None,
    ref: str | None,
    path: str,
    name: ReleaseName | None,
    as_json: bool,
) -> None:
    """Make a release of a build, with the config that APP has in ENVIRONMENT now. It runs nowhere yet.

    Examples: rollway release create shop local --ref v1.2.0; rollway release create shop local --build 4f2a9c1
    """
    if (build is None) == (ref is None):
        raise UsageError("a release is made of one build", "Give either --build or --ref.")

    async def make(coordinator: "Coordinator") -> ReleaseMade:
        if ref is not None:
            return await release_ref(coordinator, app, environment, path=path, ref=ref, name=name)
        found = await find_build(coordinator, app, build or "")
        return await release_build(coordinator, app, environment, found.id, name)

    made = ask(make)
    if as_json:
        show_json(made)
    else:
        show(f"{made.release} of {app} can be swapped to: rollway swap {app} {environment} {made.release}")


@command.command("list")
@app_argument
@environment_argument
@json_option
def list_releases(app: AppName, environment: EnvironmentName, *, as_json: bool) -> None:
    """List the releases of APP in ENVIRONMENT, oldest first.

    Example: rollway release list shop local
    """
    releases = ask(lambda coordinator: coordinator.releases(app, environment))
    if as_json:
        show_json(releases)
        return
    show_table(
        ["RELEASE", "VERSION", "COMMIT", "BUILD", "CREATED", "STATE"],
        [[r.release, r.version, r.commit[:7], r.build[:19], time_of(r.created_at_s), r.state] for r in releases],
    )


@command.command("show")
@app_argument
@environment_argument
@click.argument("release", type=RELEASE)
@json_option
def show_release(app: AppName, environment: EnvironmentName, release: ReleaseName, *, as_json: bool) -> None:
    """Show what a release is made of; of a secret, only that there is one.

    Example: rollway release show shop local v1.2.0
    """
    shown = ask(lambda coordinator: coordinator.release(app, environment, release))
    found = verify_release(shown.envelope.encode())
    config = {key: value.plain if value.plain is not None else "(secret)" for key, value in found.config.items()}
    if as_json:
        show_json(
            {
                "app": app,
                "environment": environment,
                "release": found.name,
                "build": found.build,
                "version": found.version,
                "commit": found.commit,
                "created": time_of(found.created_at_s),
                "digest": shown.digest,
                "config": config,
                "processes": {process.name: process.count for process in found.spec.processes},
            }
        )
        return
    show(f"{found.name} of {app} in {environment}: version {found.version}, commit {found.commit}")
    show(f"made {time_of(found.created_at_s)} of build {found.build}")
    for process in found.spec.processes:
        show(f"  {process.name} x {process.count}: {process.command}")
    for key, text in sorted(config.items()):
        show(f"  {key}={text}")


async def release_ref(
    coordinator: "Coordinator",
    app: AppName,
    environment: EnvironmentName,
    *,
    path: str,
    ref: str,
    name: ReleaseName | None = None,
) -> ReleaseMade:
    """Build `ref` of the repository `path` and make a release of it."""
    built = await build_and_upload(coordinator, path, ref, None)
    if built.app != app:
        raise UsageError(
            f"{path} is the repository of {built.app}, not of {app}", f"Give --path of {app}'s repository."
        )
    return await release_build(coordinator, app, environment, built.id, name)


async def release_build(
    coordinator: "Coordinator", app: AppName, environment: EnvironmentName, build: Digest, name: ReleaseName | None
) -> ReleaseMade:
    """Make a release of a build that the coordinator has, with the newest config."""
    manifest = await coordinator.build_manifest(app, build)
    found = read_manifest(manifest)
    config = await hide_declared_secrets(coordinator, app, environment, found)
    missing = [key for key, declared in found.spec.config.items() if declared.required and key not in config.values]
    if missing:
        raise RefusedError(
            f"{app} needs {', '.join(missing)}, which {environment} does not have",
            f"Set it: rollway config set {app} {environment} {missing[0]}=…",
        )
    taken = {release.release for release in await coordinator.releases(app, environment)}
    now_s = now().wall_ms // 1000
    release = Release(
        app=app,
        environment=environment,
        name=name or free_name(found.version, now_s, taken),
        build=build,
        build_manifest=digest_of(manifest),
        version=found.version,
        commit=found.commit,
        created_at_s=now_s,
        config_version=config.version,
        config=config.values,
        spec=found.spec,
    )
    return await coordinator.create_release(app, environment, seal(release))


async def hide_declared_secrets(
    coordinator: "Coordinator", app: AppName, environment: EnvironmentName, build: Build
) -> Config:
    """The newest config, after what this build declares secret and was plain until now is encrypted for good."""
    config = await coordinator.config(app, environment)
    hidden: dict[str, ConfigValue] = {
        key: encrypt(value.plain, config.recipient)
        for key, value in config.values.items()
        if value.plain is not None and key in build.spec.config and build.spec.config[key].secret
    }
    if not hidden:
        return config
    await coordinator.change_config(app, environment, config.version, hidden)
    return await coordinator.config(app, environment)


def free_name(version: str, now_s: int, taken: Collection[str]) -> ReleaseName:
    """The name by the build's version, else by the minute, with a number when that is taken as well."""
    numbers = _VERSION.fullmatch(version)
    if numbers is not None and (name := f"v{numbers[1]}") not in taken:
        return ReleaseName(name)
    minute = datetime.fromtimestamp(now_s, UTC).strftime("release-%Y-%m-%d-%H-%M")
    name, number = minute, 1
    while name in taken:
        number += 1
        name = f"{minute}-{number}"
    return ReleaseName(name)
