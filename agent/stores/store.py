"""What every store promises, whatever lies behind it.

Layout: `builds/<app>/<sha256>.tar.zst|.json`, `releases/<app>/<environment>/<name>.json`.
Rules: nothing is ever overwritten. An archive is named by its digest, so putting it twice is harmless; the manifest is
put after it and makes the build exist. What a put returned for is durable; what failed left nothing. Names have been
checked by the caller (agent.model.ids). Every method is synchronous and may take long: call it in a thread.
"""

from pathlib import Path
from typing import BinaryIO, Protocol

from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName


class Store(Protocol):
    def put_archive(self, app: AppName, digest: Digest, source: Path) -> None:
        """Copy `source`; VerificationError if it is not `digest`."""

    def put_manifest(self, app: AppName, digest: Digest, manifest: bytes) -> None:
        """RefusedError if the build has a manifest with other bytes; the same bytes again are fine."""

    def open_archive(self, app: AppName, digest: Digest) -> BinaryIO:
        """For reading; NotFoundError."""

    def read_manifest(self, app: AppName, digest: Digest) -> bytes:
        """NotFoundError if there is no such build."""

    def list_builds(self, app: AppName) -> list[Digest]:
        """Builds that have a manifest, in order of digest."""

    def put_release(self, app: AppName, environment: EnvironmentName, name: ReleaseName, envelope: bytes) -> None:
        """RefusedError if the name is taken, also by the same bytes: a release is created once."""

    def read_release(self, app: AppName, environment: EnvironmentName, name: ReleaseName) -> bytes:
        """NotFoundError."""

    def list_releases(self, app: AppName, environment: EnvironmentName) -> list[ReleaseName]:
        """In order of name."""
