"""A release as it would be made now of a build and the newest config, and whether there already is one like it.

Rules: nothing is written here, so that a plan may ask too; who makes the release (`cli.release`) has encrypted before
what the build declares secret.
"""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from agent.artifacts.sign import verify_release
from agent.client.answers import Config, ReleaseEntry
from agent.errors import RefusedError
from agent.linux.clock import now
from agent.model.build import Build
from agent.model.ids import AppName, EnvironmentName, ReleaseName
from agent.model.release import Release
from agent.wire.canonical import digest_of

if TYPE_CHECKING:
    from agent.client.coordinator import Coordinator

_VERSION: Final = re.compile(r"v?(\d+\.\d+\.\d+)")


def draft(
    app: AppName,
    environment: EnvironmentName,
    *,
    build: Build,
    manifest: bytes,
    config: Config,
    taken: Collection[str],
    name: ReleaseName | None = None,
) -> Release:
    """Raises RefusedError where the app requires config that the environment does not have."""
    missing = [key for key, declared in build.spec.config.items() if declared.required and key not in config.values]
    if missing:
        raise RefusedError(
            f"{app} needs {', '.join(missing)}, which {environment} does not have",
            f"Set it: rollway config set {app} {environment} {missing[0]}=…",
        )
    now_s = now().wall_ms // 1000
    return Release(
        app=app,
        environment=environment,
        name=name or free_name(build.version, now_s, taken),
        build=build.id,
        build_manifest=digest_of(manifest),
        version=build.version,
        commit=build.commit,
        created_at_s=now_s,
        config_version=config.version,
        config=config.values,
        spec=build.spec,
    )


async def find_same(coordinator: "Coordinator", wanted: Release, releases: list[ReleaseEntry]) -> ReleaseName | None:
    """The newest release of the same build, as the same version, with the same version of the config."""
    for entry in reversed(releases):
        if (entry.build, entry.version) != (wanted.build, wanted.version):
            continue
        shown = await coordinator.release(wanted.app, wanted.environment, entry.release)
        found = verify_release(shown.envelope.encode())
        if (found.build_manifest, found.config_version) == (wanted.build_manifest, wanted.config_version):
            return entry.release
    return None


def declared_plain(config: Config, build: Build) -> dict[str, str]:
    """Values that are plain until now and that this build declares secret."""
    declared = {key for key, variable in build.spec.config.items() if variable.secret}
    return {key: value.plain for key, value in config.values.items() if value.plain is not None and key in declared}


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
