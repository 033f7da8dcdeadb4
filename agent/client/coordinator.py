"""Typed client of the coordinator's API: one method per route.

Nothing is tried twice, except by `watch`, which outlives a coordinator that is away for a while.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import anyio

from agent.client.answers import (
    BuildEntry,
    BuildMade,
    Config,
    ConfigSaved,
    HostMember,
    HostStatus,
    HostTokenMade,
    LeaseReleased,
    LeaseShown,
    Planned,
    ReleaseEntry,
    ReleaseMade,
    ReleaseShown,
    RolloutShown,
    ScaleShown,
    Settings,
    State,
    Status,
)
from agent.client.http import Session
from agent.errors import UnreachableError
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName, RolloutId
from agent.model.release import ConfigValue
from agent.model.rollout import TERMINAL
from agent.wire.control import Row

T = TypeVar("T")
_WATCH_S: Final = 30
_AWAY_MAX_S: Final = 120
"""How long `watch` waits for a coordinator that does not answer."""
_AWAY_RETRY_S: Final = 0.5


class Coordinator(Session):
    """One coordinator, as the holder of one token sees it: `async with Coordinator(context) as coordinator`."""

    async def upload_archive(self, app: AppName, build: Digest, archive: Path) -> None:
        with archive.open("rb") as body:
            await self.read("PUT", f"{_build(app, build)}/archive", body=body)

    async def upload_manifest(self, app: AppName, build: Digest, manifest: bytes) -> BuildMade:
        """After the archive: this makes the build exist, and its app known."""
        return await self.ask("PUT", _build(app, build), BuildMade, body=manifest)

    async def builds(self, app: AppName) -> list[BuildEntry]:
        return await self.ask("GET", f"/v1/apps/{quote(app)}/builds", list[BuildEntry])

    async def build_manifest(self, app: AppName, build: Digest) -> bytes:
        return await self.read("GET", _build(app, build))

    async def environments(self, app: AppName) -> list[EnvironmentName]:
        return await self.ask("GET", f"/v1/apps/{quote(app)}/environments", list[EnvironmentName])

    async def settings(self, app: AppName, environment: EnvironmentName) -> Settings:
        return await self.ask("GET", _environment(app, environment), Settings)

    async def set_settings(self, app: AppName, environment: EnvironmentName, file: str) -> Settings:
        return await self.ask("PUT", _environment(app, environment), Settings, body={"file": file})

    async def config(self, app: AppName, environment: EnvironmentName) -> Config:
        """The newest version; version 0 is empty."""
        return await self.ask("GET", f"{_environment(app, environment)}/config", Config)

    async def change_config(
        self,
        app: AppName,
        environment: EnvironmentName,
        base_version: int,
        values: Mapping[str, ConfigValue],
        unset: Sequence[str] = (),
    ) -> int:
        """The new version; RefusedError when somebody else changed it since `base_version`."""
        body = {"base_version": base_version, "set": dict(values), "unset": list(unset)}
        return (await self.ask("POST", f"{_environment(app, environment)}/config", ConfigSaved, body=body)).version

    async def create_release(self, app: AppName, environment: EnvironmentName, envelope: bytes) -> ReleaseMade:
        return await self.ask("POST", f"{_environment(app, environment)}/releases", ReleaseMade, body=envelope)

    async def releases(self, app: AppName, environment: EnvironmentName) -> list[ReleaseEntry]:
        """Oldest first."""
        return await self.ask("GET", f"{_environment(app, environment)}/releases", list[ReleaseEntry])

    async def release(self, app: AppName, environment: EnvironmentName, name: ReleaseName) -> ReleaseShown:
        return await self.ask("GET", f"{_environment(app, environment)}/releases/{quote(name)}", ReleaseShown)

    async def state(self, app: AppName, environment: EnvironmentName) -> State:
        return await self.ask("GET", f"{_environment(app, environment)}/state", State)

    async def plan_rollout(
        self, app: AppName, environment: EnvironmentName, order: bytes, strategy: str | None
    ) -> Planned:
        body = {"order": order.decode(), "strategy": strategy, "plan": True}
        return await self.ask("POST", f"{_environment(app, environment)}/rollouts", Planned, body=body)

    async def start_rollout(
        self, app: AppName, environment: EnvironmentName, order: bytes, strategy: str | None
    ) -> RolloutShown:
        """The rollout, or, in state `done`, what says that the release runs everywhere already."""
        body = {"order": order.decode(), "strategy": strategy, "plan": False}
        return await self.ask("POST", f"{_environment(app, environment)}/rollouts", RolloutShown, body=body)

    async def rollouts(
        self, app: AppName | None = None, environment: EnvironmentName | None = None
    ) -> list[RolloutShown]:
        """Newest first."""
        return await self.ask("GET", "/v1/rollouts", list[RolloutShown], query=_where(app, environment))

    async def rollout(self, rollout: RolloutId, after_ms: int | None = None) -> RolloutShown:
        """As it is; with `after_ms`, as soon as it changed after that, or after a while."""
        query = {} if after_ms is None else {"after": str(after_ms), "wait_s": str(_WATCH_S)}
        return await self.ask("GET", f"/v1/rollouts/{quote(rollout)}", RolloutShown, query=query)

    async def tell_rollout(self, rollout: RolloutId, word: str) -> RolloutShown:
        """`word` is abort, pause or resume; RefusedError when its state does not know it."""
        return await self.ask("POST", f"/v1/rollouts/{quote(rollout)}/{word}", RolloutShown)

    def watch(self, rollout: RolloutId) -> AsyncIterator[RolloutShown | None]:
        """Give the rollout at each change until it is terminal; None when the coordinator went away."""
        return _follow(
            lambda seen: self.rollout(rollout, None if seen is None else seen.changed_ms),
            lambda shown: shown.state in TERMINAL,
        )

    async def scale(self, app: AppName, environment: EnvironmentName, counts: Mapping[ProcessName, int]) -> ScaleShown:
        return await self.ask("POST", f"{_environment(app, environment)}/scale", ScaleShown, body={"counts": counts})

    async def counts(self, app: AppName, environment: EnvironmentName, after: str | None = None) -> ScaleShown:
        """As they are; with the version of an answer, as soon as there is another, or after a while."""
        query = {} if after is None else {"after": after, "wait_s": str(_WATCH_S)}
        return await self.ask("GET", f"{_environment(app, environment)}/scale", ScaleShown, query=query)

    def watch_counts(self, app: AppName, environment: EnvironmentName) -> AsyncIterator[ScaleShown | None]:
        """Give where the hosts are, at each change until all are there; None when the coordinator went away."""
        return _follow(
            lambda seen: self.counts(app, environment, None if seen is None else seen.version),
            lambda shown: shown.state != "scaling" or shown.rollout is not None,
        )

    async def status(self, app: AppName | None = None, environment: EnvironmentName | None = None) -> Status:
        return await self.ask("GET", "/v1/status", Status, query=_where(app, environment))

    async def ps(
        self, app: AppName | None = None, environment: EnvironmentName | None = None, *, figures: bool = False
    ) -> list[Row]:
        """`figures`: with what each instance uses of its host, which the hosts are asked for."""
        query = _where(app, environment)
        return await self.ask("GET", "/v1/ps", list[Row], query={**query, "figures": "1"} if figures else query)

    async def hosts(self) -> list[HostStatus]:
        return await self.ask("GET", "/v1/hosts", list[HostStatus])

    async def new_host_token(
        self, environments: Sequence[str], labels: Mapping[str, str], name: str, ttl_ms: int
    ) -> HostTokenMade:
        body = {"environments": list(environments), "labels": dict(labels), "name": name, "ttl_ms": ttl_ms}
        return await self.ask("POST", "/v1/host-tokens", HostTokenMade, body=body)

    async def label_host(self, host: HostName, labels: Mapping[str, str | None]) -> HostMember:
        """None removes a label."""
        return await self.ask("PATCH", f"/v1/hosts/{quote(host)}/labels", HostMember, body={"labels": dict(labels)})

    async def remove_host(self, host: HostName) -> HostMember:
        return await self.ask("DELETE", f"/v1/hosts/{quote(host)}", HostMember)

    async def leases(self) -> list[LeaseShown]:
        return await self.ask("GET", "/v1/leases", list[LeaseShown])

    async def release_lease(
        self, app: AppName, environment: EnvironmentName, process: ProcessName, host: HostName
    ) -> LeaseReleased:
        path = f"/v1/apps/{app}/environments/{environment}/leases/{process}"
        return await self.ask("DELETE", path, LeaseReleased, query={"host": host})

    def logs(
        self,
        app: AppName,
        environment: EnvironmentName,
        process: ProcessName | None,
        slot: int | None,
        *,
        lines: int,
        follow: bool,
    ) -> AsyncIterator[bytes]:
        """Give log records, a JSON object each, as the hosts send them."""
        query = {"lines": str(lines), "follow": "1" if follow else "0"}
        if process is not None:
            query["process"] = process
        if slot is not None:
            query["slot"] = str(slot)
        return self.lines(f"{_environment(app, environment)}/logs", query)


async def _follow(look: Callable[[T | None], Awaitable[T]], is_over: Callable[[T], bool]) -> AsyncIterator[T | None]:
    """Give what is seen at each change, to its end; None when the coordinator went away, and is waited for."""
    seen: T | None = None
    away_since_s: float | None = None
    while seen is None or not is_over(seen):
        try:
            shown = await look(seen)
        except UnreachableError:
            if away_since_s is None:
                away_since_s = anyio.current_time()
                yield None
            if anyio.current_time() - away_since_s > _AWAY_MAX_S:
                raise
            await anyio.sleep(_AWAY_RETRY_S)
            continue
        away_since_s = None
        if shown != seen:
            yield shown
        seen = shown


def _build(app: AppName, build: Digest) -> str:
    return f"/v1/apps/{quote(app)}/builds/{quote(build)}"


def _environment(app: AppName, environment: EnvironmentName) -> str:
    return f"/v1/apps/{quote(app)}/environments/{quote(environment)}"


def _where(app: AppName | None, environment: EnvironmentName | None) -> dict[str, str]:
    return {key: value for key, value in (("app", app), ("environment", environment)) if value is not None}
