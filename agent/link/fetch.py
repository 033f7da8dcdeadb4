"""The agent's client for what is too large for the link: releases, manifests and archives, by HTTPS.

Rules: every answer has a bound; an archive is on the disk whole and with the digest that was asked for, or not at all.
Any coordinator will do: each is asked in turn until one has it. Not handled here: signatures (artifacts.sign).
"""

import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import aiohttp

from agent.errors import FailedError, NotFoundError, UnreachableError, VerificationError
from agent.linux.receive import receive
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName

ENVELOPE_BYTES_MAX: Final = 1 << 20
MANIFEST_BYTES_MAX: Final = 64 << 20
CHUNK_BYTES: Final = 1 << 18
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)
"""A slow archive may take as long as it takes; one that stands still may not."""

Answer = TypeVar("Answer")


class Fetcher:
    """Reads from the coordinators; keeps no connection between two calls."""

    def __init__(self, *, coordinators: Sequence[str], tls: ssl.SSLContext) -> None:
        self._coordinators = tuple(url.rstrip("/") for url in coordinators)
        self._tls = tls

    async def release(self, app: AppName, environment: EnvironmentName, name: ReleaseName) -> bytes:
        """The release's envelope."""
        return await self._small(f"releases/{app}/{environment}/{quote(name, safe='')}", ENVELOPE_BYTES_MAX)

    async def manifest(self, app: AppName, build: Digest) -> bytes:
        return await self._small(f"builds/{app}/{quote(build, safe='')}/manifest", MANIFEST_BYTES_MAX)

    async def archive(self, app: AppName, build: Digest, size_bytes: int, target: Path) -> None:
        """Store the archive at `target`, whose folder exists."""

        async def store(response: aiohttp.ClientResponse) -> None:
            chunks = response.content.iter_chunked(CHUNK_BYTES)
            try:
                await receive(chunks, target, digest=build, size_bytes_max=size_bytes)
            except OSError as error:
                if isinstance(error, aiohttp.ClientError | TimeoutError):
                    raise
                raise FailedError(
                    f"cannot store the build {build}: {error.strerror or error}",
                    f"Look at the disk of {target.parent}.",
                ) from error

        await self._ask(f"builds/{app}/{quote(build, safe='')}/archive", store)

    async def _small(self, path: str, size_bytes_max: int) -> bytes:
        async def read(response: aiohttp.ClientResponse) -> bytes:
            body = bytearray()
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                body += chunk
                if len(body) > size_bytes_max:
                    raise VerificationError(f"cannot fetch {path}: it has more than {size_bytes_max} bytes")
            return bytes(body)

        return await self._ask(path, read)

    async def _ask(self, path: str, use: Callable[[aiohttp.ClientResponse], Awaitable[Answer]]) -> Answer:
        reasons: list[str] = []
        missing = 0
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
            for url in self._coordinators:
                try:
                    async with http.get(f"{url}/agent/v1/{path}", ssl=self._tls, allow_redirects=False) as response:
                        if response.ok:
                            with _cut_off(response):
                                return await use(response)
                        missing += response.status == HTTPStatus.NOT_FOUND
                        reasons.append(f"{url} answered {response.status} {response.reason}")
                except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                    reasons.append(f"{url}: {str(error) or type(error).__name__}")
        told = "; ".join(reasons)
        if missing == len(self._coordinators):
            raise NotFoundError(f"cannot fetch {path}: {told}", "It was never stored, or was pruned.")
        raise UnreachableError(f"cannot fetch {path}: {told}", "It is tried again.")


@contextmanager
def _cut_off(response: aiohttp.ClientResponse) -> Iterator[None]:
    """End a download that is not wanted any more at once: a TLS goodbye would wait for all that is still under way."""
    try:
        yield
    finally:
        connection = response.connection  # None once everything was read
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
