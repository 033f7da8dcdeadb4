"""What an agent fetches beside the link: whole and verified, or not there at all."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from agent.errors import FailedError, NotFoundError, RollwayError, UnreachableError, VerificationError
from agent.link.fetch import ENVELOPE_BYTES_MAX, Fetcher
from agent.link.tls import client_context, server_context
from agent.model.ids import AppName, Digest, EnvironmentName, ReleaseName
from agent.wire.canonical import digest_of
from tests.integration.link.ends import identity

pytestmark = pytest.mark.anyio

SHOP = AppName("shop")
ARCHIVE = bytes(range(256)) * 4_000
BUILD = digest_of(ARCHIVE)
MODE = web.AppKey("mode", str)
NOWHERE = "https://127.0.0.1:1"


async def _archive(request: web.Request) -> web.StreamResponse:
    assert request.match_info["digest"] == BUILD
    match request.app[MODE]:
        case "torn":
            response = web.StreamResponse(headers={"Content-Length": str(len(ARCHIVE))})
            await response.prepare(request)
            await response.write(ARCHIVE[:1000])
            assert request.transport is not None
            request.transport.abort()
            return response
        case "altered":
            return web.Response(body=b"x" + ARCHIVE[1:])
        case "endless":
            response = web.StreamResponse()
            await response.prepare(request)
            while request.transport is not None and not request.transport.is_closing():
                await response.write(ARCHIVE)
                # A write to a connection that is lost does not wait, and the loop would never learn of the loss.
                await anyio.lowlevel.checkpoint()
            return response
        case "gone":
            return web.Response(status=404)
        case _:
            return web.Response(body=ARCHIVE)


async def _release(request: web.Request) -> web.Response:
    sizes = {"v1": 10, "big": ENVELOPE_BYTES_MAX + 1}
    size = sizes.get(request.match_info["name"])
    return web.Response(status=404) if size is None else web.Response(body=b"e" * size)


@asynccontextmanager
async def fetching(folder: Path, mode: str = "", others: tuple[str, ...] = ()) -> AsyncIterator[Fetcher]:
    """A fetcher of a server that answers in this way, after `others`."""
    app = web.Application()
    app[MODE] = mode
    app.router.add_get("/agent/v1/builds/shop/{digest}/archive", _archive)
    app.router.add_get("/agent/v1/releases/shop/local/{name}", _release)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(
        runner, "127.0.0.1", 0, ssl_context=server_context(identity(folder, "coordinator", "coordinator"))
    )
    await site.start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield Fetcher(coordinators=[*others, url], tls=client_context(identity(folder, "h1", "agent")))
    finally:
        await runner.cleanup()


async def test_an_archive_arrives_whole(tmp_path: Path) -> None:
    """An archive is stored under its name once all of it is there and is what was asked for."""
    target = tmp_path / "in" / "archive"
    target.parent.mkdir()
    async with fetching(tmp_path) as fetcher:
        await fetcher.archive(SHOP, BUILD, len(ARCHIVE), target)
    assert target.read_bytes() == ARCHIVE
    assert [file.name for file in target.parent.iterdir()] == ["archive"]


BAD: dict[str, tuple[str, type[RollwayError], str]] = {
    "one that was cut off": ("torn", UnreachableError, "tried again"),
    "one with other bytes": ("altered", VerificationError, "digest"),
    "one that never ends": ("endless", VerificationError, "more than"),
    "one that nobody has": ("gone", NotFoundError, "404"),
}


@pytest.mark.parametrize(("mode", "error", "text"), BAD.values(), ids=BAD)
async def test_a_bad_archive_leaves_nothing(tmp_path: Path, mode: str, error: type[RollwayError], text: str) -> None:
    """Whatever goes wrong on the way, no file and no part of one is left."""
    folder = tmp_path / "in"
    folder.mkdir()
    async with fetching(tmp_path, mode) as fetcher:
        with pytest.raises(error, match=text):
            await fetcher.archive(SHOP, BUILD, len(ARCHIVE), folder / "archive")
    assert list(folder.iterdir()) == []


async def test_a_cancelled_fetch_leaves_nothing(tmp_path: Path) -> None:
    """A host that is told to stop in the middle of a download keeps no part of it."""
    folder = tmp_path / "in"
    folder.mkdir()
    async with fetching(tmp_path, "endless") as fetcher, anyio.create_task_group() as tasks:
        tasks.start_soon(fetcher.archive, SHOP, BUILD, 1 << 40, folder / "archive")
        with anyio.fail_after(10):
            while not [file for file in folder.iterdir() if file.stat().st_size]:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert list(folder.iterdir()) == []


async def test_a_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    """Where a file cannot be written the error names the folder, and no other coordinator is asked."""
    async with fetching(tmp_path) as fetcher:
        with pytest.raises(FailedError, match="Look at the disk"):
            await fetcher.archive(SHOP, BUILD, len(ARCHIVE), tmp_path / "missing" / "archive")


async def test_another_coordinator_is_asked(tmp_path: Path) -> None:
    """A coordinator that does not answer costs a try, not the release."""
    async with fetching(tmp_path, others=(NOWHERE,)) as fetcher:
        assert await fetcher.release(SHOP, EnvironmentName("local"), ReleaseName("v1")) == b"e" * 10


async def test_nobody_there_is_said(tmp_path: Path) -> None:
    """With no coordinator to be reached the error names each with its reason."""
    fetcher = Fetcher(coordinators=[NOWHERE], tls=client_context(identity(tmp_path, "h1", "agent")))
    with pytest.raises(UnreachableError, match=NOWHERE):
        await fetcher.manifest(SHOP, Digest(BUILD))


async def test_an_envelope_has_a_bound(tmp_path: Path) -> None:
    """A coordinator cannot fill an agent's memory with what calls itself a release."""
    async with fetching(tmp_path) as fetcher:
        with pytest.raises(VerificationError, match="more than"):
            await fetcher.release(SHOP, EnvironmentName("local"), ReleaseName("big"))
