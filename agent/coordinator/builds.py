"""Builds: archives and manifests come in, are checked, and are kept for ever.

Rules: an archive is named by its digest, and is received beside the store before it is put there; the manifest makes
the build exist, and its app known.
"""

import tempfile
from collections.abc import AsyncIterable, Collection
from pathlib import Path
from typing import Final

import anyio.to_thread
from sqlalchemy import Connection

from agent.artifacts.manifest import read_manifest
from agent.coordinator.db import apps
from agent.coordinator.db.apps import BuildRow
from agent.coordinator.db.engine import Database
from agent.coordinator.environments import need_app
from agent.errors import FailedError, NotFoundError, RefusedError
from agent.linux import clock
from agent.linux.receive import receive
from agent.model.build import Build
from agent.model.ids import AppName, Digest, ProcessName
from agent.stores.store import Store
from agent.wire.canonical import digest_of

ARCHIVE_BYTES_MAX: Final = 8 << 30


class Builds:
    """`incoming` is a folder on the store's disk, for archives that are not whole yet."""

    def __init__(self, database: Database, store: Store, incoming: Path) -> None:
        self._database, self._store, self._incoming = database, store, incoming
        self._types: dict[Digest, tuple[ProcessName, ...]] = {}

    async def receive(self, app: AppName, digest: Digest, chunks: AsyncIterable[bytes]) -> bool:
        """Store an archive; False if it is there already. Raises VerificationError, FailedError."""
        if await anyio.to_thread.run_sync(self._has, app, digest):
            return False
        try:
            with tempfile.TemporaryDirectory(dir=self._incoming) as folder:
                source = Path(folder) / "archive"
                await receive(chunks, source, digest=digest, size_bytes_max=ARCHIVE_BYTES_MAX)
                await anyio.to_thread.run_sync(self._store.put_archive, app, digest, source)
        except OSError as error:
            raise FailedError(
                f"cannot store the archive of {app} below {self._incoming}: {error.strerror or error}",
                "Nothing of it was kept. Free space on the coordinator's machine (`df -h`, `df -i`), then build again.",
            ) from error
        return True

    async def describe(self, app: AppName, digest: Digest, manifest: bytes) -> Build:
        """Make the build exist by its manifest. Raises VerificationError, RefusedError, NotFoundError."""
        build = await anyio.to_thread.run_sync(read_manifest, manifest)
        if (build.app, build.id) != (app, digest):
            raise RefusedError(
                f"the manifest describes build {build.id} of {build.app}, not {digest} of {app}",
                "Send it under the app and the digest that it names.",
            )
        if not await anyio.to_thread.run_sync(self._has, app, digest):
            raise NotFoundError(f"there is no archive {digest} of {app} yet", "Send the archive before its manifest.")
        await anyio.to_thread.run_sync(self._store.put_manifest, app, digest, manifest)
        row = BuildRow(
            app=app,
            id=digest,
            manifest=digest_of(manifest),
            version=build.version,
            commit=build.commit,
            committed_at_s=build.committed_at_s,
            size_bytes=build.archive.size_bytes,
            secrets=frozenset(key for key, declared in build.spec.config.items() if declared.secret),
            created_ms=clock.now().wall_ms,
        )
        await self._database.run(lambda connection: apps.add_build(connection, row))
        return build

    async def list(self, app: AppName) -> list[BuildRow]:
        def read(connection: Connection) -> list[BuildRow]:
            need_app(connection, app)
            return apps.list_builds(connection, app)

        return await self._database.run(read)

    async def types(self, app: AppName, wanted: Collection[ProcessName]) -> tuple[ProcessName, ...]:
        """Process types of the app's builds, newest build first, up to where all that are `wanted` are among them."""
        found: dict[ProcessName, None] = {}
        for row in reversed(await self.list(app)):
            if found.keys() >= set(wanted):
                break
            if row.manifest not in self._types:  # a build never changes
                spec = read_manifest(await self.manifest(app, row.id)).spec
                self._types[row.manifest] = tuple(process.name for process in spec.processes)
            found |= dict.fromkeys(self._types[row.manifest])
        return tuple(found)

    async def manifest(self, app: AppName, digest: Digest) -> bytes:
        return await anyio.to_thread.run_sync(self._store.read_manifest, app, digest)

    def _has(self, app: AppName, digest: Digest) -> bool:
        try:
            self._store.open_archive(app, digest).close()
        except NotFoundError:
            return False
        return True
