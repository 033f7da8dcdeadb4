"""Commands on a host that has no coordinator: what it runs and what it refuses, over a connection of the test's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from agent.artifacts import sign
from agent.errors import NotFoundError, RefusedError, RollwayError, VerificationError
from agent.host import runs
from agent.link.runs import Line
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName
from agent.model.process import AppSpec, Limits, ProcessType
from agent.model.release import ConfigValue, RunOrder
from agent.wire.runs import STDOUT, Ask, Chunk, Ended, Refused, Size, Started, encode, from_host
from tests.integration.host.rig import DEADLINE_S, Rig, running
from tests.integration.host.source import APP, ENVIRONMENT, FolderSource, Wish
from tests.integration.host.test_swap import source
from tests.integration.link.test_runs import ends

pytestmark = pytest.mark.anyio
__all__ = ["source"]
SPEC = AppSpec(
    app=APP,
    processes=(
        ProcessType(name=ProcessName("worker"), command="sleep 1000"),
        ProcessType(name=ProcessName("small"), command="sleep 1000", count=0, limits=Limits(open_files=77)),
    ),
)


def order(ref: ReleaseRef, *words: str) -> RunOrder:
    return RunOrder(
        app=APP,
        environment=ENVIRONMENT,
        host=HostName("h1"),
        release=ref.name,
        release_digest=ref.digest,
        words=words or ("true",),
        like=None,
    )


@asynccontextmanager
async def asked(rig: Rig, wanted: RunOrder, size: Size | None = None) -> AsyncIterator[Line]:
    """A caller's line, over which the host has been asked."""
    async with ends() as (caller, host):

        @asynccontextmanager
        async def dial() -> AsyncIterator[Line]:
            yield host
            await host.close()

        rig.host.runs.begin(dial)
        await caller.send(encode(Ask(order=sign.seal(wanted).decode(), size=size, term="xterm")))
        yield caller


async def hear(line: Line) -> object:
    with anyio.fail_after(DEADLINE_S):
        frame = await line.receive()
    return None if frame is None else from_host(frame)


async def all_said(line: Line) -> tuple[str, object]:
    """What it writes, and the last word about it."""
    written = b""
    while True:
        match await hear(line):
            case Chunk(stream=stream, data=data):
                written += data if stream == STDOUT else b""
            case Ended() | Refused() as last:
                return written.decode(), last
            case None:
                return written.decode(), None


async def test_it_sees_what_instances_see(tmp_path: Path, source: FolderSource) -> None:
    """Config, folder and release; user, limits and sandbox of the first type, or of the one that is named."""
    ref = source.add("v1", SPEC, config={"GREETING": ConfigValue(plain="hello")})
    async with running(tmp_path, source) as rig:
        await rig.until_done(Wish().for_(ref))
        script = 'cat VERSION; echo " $GREETING $ROLLWAY_RELEASE $ROLLWAY_INSTANCE ${TERM:-none}"; ulimit -n'
        async with asked(rig, order(ref, "sh", "-c", script)) as caller:
            written, last = await all_said(caller)
        assert (written.splitlines()[0], last) == ("v1 hello v1 run.1 none", Ended(code=0))
        like = replace(order(ref, "sh", "-c", script), like=ProcessName("small"))
        async with asked(rig, like, Size(24, 80)) as caller:
            written, _ = await all_said(caller)
        assert written.splitlines() == ["v1 hello v1 run.2 xterm", "77"]


async def test_it_goes_on_as_it_began_while_the_host_is_swapped(tmp_path: Path, source: FolderSource) -> None:
    """Its folder stays; who asks for the release before from then on is told that it is not what runs."""
    wish = Wish()
    v1, v2 = source.add("v1", SPEC), source.add("v2", SPEC)
    async with running(tmp_path, source) as rig:
        await rig.until_done(wish.for_(v1))
        script = "trap 'cat VERSION; exit 0' TERM; while :; do sleep 0.05; done"
        async with asked(rig, order(v1, "sh", "-c", script)) as one:
            assert isinstance(await hear(one), Started)
            await rig.until_done(wish.for_(v2))
            await rig.until_event("command begins")
            rig.host.runs.end("it is time")
            assert await all_said(one) == ("v1", Ended(code=0, reason="it is time"))
        rig.host.runs.closed = ""
        async with asked(rig, order(v1)) as caller:
            _, last = await all_said(caller)
        assert isinstance(last, Refused)
        assert "v1 of shop in production is not what runs there" in last.error


async def test_what_may_not_be_run_is_refused_in_words(
    tmp_path: Path, source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host looks for itself, whatever a coordinator has looked at."""
    ref = source.add("v1", SPEC)
    good = order(ref)
    other = ReleaseRef(name=ref.name, digest=Digest("sha256:" + "0" * 64))
    refused: list[tuple[RunOrder, type[RollwayError], str]] = [
        (replace(good, host=HostName("h2")), VerificationError, "it was ordered for h2"),
        (replace(good, app=AppName("blog")), RefusedError, "v1 of blog in production is not what runs there"),
        (replace(good, environment=EnvironmentName("x")), RefusedError, "v1 of shop in x is not what runs there"),
        (replace(good, release=ReleaseName("v9")), RefusedError, "v9 of shop in production is not what runs there"),
        (order(other), RefusedError, "v1 of shop in production is not what runs there"),
        (replace(good, like=ProcessName("web")), NotFoundError, "v1 has no process type web"),
        (replace(good, words=("",)), VerificationError, "wrong words"),
    ]
    async with running(tmp_path, source) as rig:
        await rig.until_done(Wish().for_(ref))
        for wanted, kind, why in refused:
            async with asked(rig, wanted) as caller:
                _, last = await all_said(caller)
            assert isinstance(last, Refused), wanted
            assert (last.code, why in last.error) == (kind.exit_code, True), last
        monkeypatch.setattr(runs, "RUNS_MAX", 0)
        async with asked(rig, good) as caller:
            _, last = await all_said(caller)
        assert isinstance(last, Refused)
        assert last.code == RefusedError.exit_code
        assert not list((tmp_path / "run" / "i").glob("*.run.*"))


async def test_who_says_nothing_is_not_waited_for(
    tmp_path: Path, source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection over which nothing is asked for, or something else, is closed."""
    monkeypatch.setattr(runs, "ASKED_WITHIN_S", 0.1)
    async with running(tmp_path, source) as rig, ends() as (caller, host):

        @asynccontextmanager
        async def dial() -> AsyncIterator[Line]:
            yield host
            await host.close()

        rig.host.runs.begin(dial)
        _, last = await all_said(caller)
        assert isinstance(last, Refused)
        assert last.error == "nothing was asked for"
