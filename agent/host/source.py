"""Where a host's releases come from, before whoever fetches them is there: to be asked, and waited for."""

from pathlib import Path
from typing import Final

import anyio

from agent.host.releases import ReleaseSource
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName


class AwaitedSource:
    """Asks the one that `give` brings. What lies on the host needs none."""

    def __init__(self) -> None:
        self._source: ReleaseSource | None = None
        self._given: Final = anyio.Event()
        self.is_wanted = False
        """Whether somebody has asked."""

    def give(self, source: ReleaseSource) -> None:
        self._source = source
        self._given.set()

    async def release(self, app: AppName, environment: EnvironmentName, name: ReleaseName) -> bytes:
        return await (await self._there()).release(app, environment, name)

    async def manifest(self, app: AppName, build: Digest) -> bytes:
        return await (await self._there()).manifest(app, build)

    async def archive(self, app: AppName, build: Digest, size_bytes: int, target: Path) -> None:
        await (await self._there()).archive(app, build, size_bytes, target)

    async def _there(self) -> ReleaseSource:
        self.is_wanted = True
        while self._source is None:
            await self._given.wait()
        return self._source
