"""`rollway release`: a build with an environment's config, named, never modified.

The release is made and sealed here, on the operator's machine: the coordinator keeps it and cannot change it.
"""

from typing import TYPE_CHECKING

import rich_click as click

from agent.artifacts.build import Built
from agent.artifacts.manifest import read_manifest
from agent.artifacts.sign import seal, verify_release
from agent.cli.arguments import RELEASE, app_argument, environment_argument, json_option, path_option, version_option
from agent.cli.build import built_here, find_build, upload
from agent.cli.draft import declared_plain, draft, find_same
from agent.cli.moments import ago, in_full, iso
from agent.cli.output import quoted, remark, show, show_json, show_table, words
from agent.cli.session import ask
from agent.client.answers import Config, ReleaseMade
from agent.client.secret import encrypt
from agent.errors import UsageError
from agent.linux.clock import now
from agent.model.build import Build
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator


@click.group("release")
def command() -> None:
    """Releases: what can be swapped to, and rolled back to."""


@command.command("create")
@app_argument
@environment_argument
@click.option("--build", help="An id, the beginning of one, or a version.")
@click.option("--ref", help="Build this commit, tag or branch first.")
@path_option
@version_option
@click.option("--name", type=RELEASE, help="Else v1.2.3 by the build's version, or by the minute.")
@json_option
def create(
    app: AppName,
    environment: EnvironmentName,
    *,
    build: str | None,
    ref: str | None,
    path: str,
    version: str | None,
    name: ReleaseName | None,
    as_json: bool,
) -> None:
    """Make a release of a build, with the config that APP has in ENVIRONMENT now. It runs nowhere yet.

    Without --name, a release of the same build and config that is there already is the answer.

    Examples: rollway release create shop local --ref v1.2.0; rollway release create shop local --build 4f2a9c1
    """
    if (build is None) == (ref is None):
        raise UsageError("a release is made of one build", "Give either --build or --ref.")
    if version is not None and ref is None:
        raise UsageError("a version is given to what is built", "Give --version with --ref only.")

    async def make(coordinator: "Coordinator") -> ReleaseMade:
        found = await find_build(coordinator, app, build or "")
        return await release_build(coordinator, app, environment, found.id, name)

    if ref is None:
        made = ask(make)
    else:
        with built_here(path, ref, version, app=app) as built:
            made = ask(lambda coordinator: release_built(coordinator, app, environment, built, name))
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
    now_ms = now().wall_ms
    show_table(
        ["RELEASE", "VERSION", "COMMIT", "BUILD", "CREATED", "STATE"],
        [
            [r.release, r.version, r.commit[:7], r.build[:19], ago(r.created_at_s * 1000, now_ms), words(r.state)]
            for r in releases
        ],
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
                "created": iso(found.created_at_s * 1000),
                "digest": shown.digest,
                "config": config,
                "processes": {process.name: process.count for process in found.spec.processes},
            }
        )
        return
    show(f"{found.name} of {app} in {environment}: version {found.version}, commit {found.commit}")
    show(f"made {in_full(found.created_at_s * 1000)} of build {found.build}")
    for process in found.spec.processes:
        show(f"  {process.name} x {process.count}: {process.command}")
    for key, text in sorted(config.items()):
        show(f"  {key}={quoted(text)}")


async def release_built(
    coordinator: "Coordinator",
    app: AppName,
    environment: EnvironmentName,
    built: Built,
    name: ReleaseName | None = None,
) -> ReleaseMade:
    """Give the coordinator a build that was made here, and make a release of it."""
    return await release_build(coordinator, app, environment, (await upload(coordinator, built)).id, name)


async def release_build(
    coordinator: "Coordinator", app: AppName, environment: EnvironmentName, build: Digest, name: ReleaseName | None
) -> ReleaseMade:
    """Make a release of a build that the coordinator has, with the newest config; without a name, only a new one."""
    manifest = await coordinator.build_manifest(app, build)
    found = read_manifest(manifest)
    config = await hide_declared_secrets(coordinator, app, environment, found)
    releases = await coordinator.releases(app, environment)
    taken = {entry.release for entry in releases}
    release = draft(app, environment, build=found, manifest=manifest, config=config, taken=taken, name=name)
    if name is None and (same := await find_same(coordinator, release, releases)) is not None:
        remark(f"{same} is this build with this config: no other release is made")
        return ReleaseMade(app=app, environment=environment, release=same, build=build)
    return await coordinator.create_release(app, environment, seal(release))


async def hide_declared_secrets(
    coordinator: "Coordinator", app: AppName, environment: EnvironmentName, build: Build
) -> Config:
    """The newest config, after what this build declares secret and was plain until now is encrypted for good."""
    config = await coordinator.config(app, environment)
    plain = declared_plain(config, build)
    if not plain:
        return config
    hidden = {key: encrypt(value, config.recipient) for key, value in plain.items()}
    await coordinator.change_config(app, environment, config.version, hidden)
    return await coordinator.config(app, environment)
