"""What a person on a host does without any coordinator: look, restart, stop, go back; by its agent's socket."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from subprocess import CompletedProcess

import anyio
import pytest
from anyio import to_thread

from agent.host.byhand import serving
from agent.host.control import Control
from agent.model.assignment import AppReport, ReleaseRef
from agent.model.ids import ProcessName
from agent.model.process import AppSpec, ProcessType, StopPolicy
from tests.integration.host.rig import Rig, running
from tests.integration.host.source import APP, FolderSource, Wish, web
from tests.integration.host.test_swap import LISTEN, Load, get, port, source
from tests.integration.host.verbs import rollway

pytestmark = pytest.mark.anyio
__all__ = ["port", "source"]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The agent's own loop alone: who is asked is a process, and its loop makes no difference (see test_door)."""
    return "asyncio", {"use_uvloop": True}


WORKER = ProcessType(
    name=ProcessName("worker"),
    command="/bin/sh -c 'echo up; exec sleep 1000'",
    swap="stop-first",
    stop=StopPolicy(linger_ms=0, grace_ms=2_000),
)


def app(port: int, *, count: int = 2) -> AppSpec:
    kind = web(f"{LISTEN}:{port}", count=count, stop=StopPolicy(linger_ms=1_000, grace_ms=3_000))
    return AppSpec(app=APP, processes=(kind, WORKER))


@asynccontextmanager
async def served(folder: Path, source: FolderSource, *, drain: bool = True) -> AsyncIterator[Rig]:
    """A running host whose socket is served; it was there before, or has nothing assigned."""
    (folder / "run").mkdir(exist_ok=True)
    control = Control(folder / "run", None)
    async with running(folder, source, drain=drain) as rig, serving(control, rig.host):
        yield rig
    control.close()


async def by_hand(folder: Path, *words: str, code: int = 0) -> CompletedProcess[str]:
    """`rollway agent …` on this host, while it runs."""
    run = partial(rollway, "agent", *words, "--host-socket", folder / "run" / "agent.sock", code=code)
    return await to_thread.run_sync(run)


async def rows(folder: Path) -> dict[str, dict[str, object]]:
    shown = await by_hand(folder, "ps", "--json")
    return {row["instance"]: row for row in json.loads(shown.stdout)}


def states(report: AppReport) -> dict[str, str]:
    return {view.name: view.state for view in report.instances}


async def test_what_instances_use_is_shown_to_who_asks(tmp_path: Path, source: FolderSource, port: int) -> None:
    """Always for scripts, with the units in the names, and in a wide table for people."""
    async with served(tmp_path, source) as rig:
        await rig.until_done(Wish().for_(source.add("v1", app(port, count=1))))
        web_row, worker_row = json.loads((await by_hand(tmp_path, "ps", "--json")).stdout)
        for row in (web_row, worker_row):
            assert 0 <= row["start_ms"] < 30_000
            assert row["figures"]["memory_bytes"] > 100_000
            assert row["figures"]["memory_kind"] == "pss"
            assert row["figures"]["threads"] >= 1
            assert row["figures"]["open_files"] >= 3
            assert row["figures"]["cpu_ms"] >= 0
        assert web_row["figures"]["cpu_ms"] > 0
        head, web_line, *_ = (await by_hand(tmp_path, "ps", "--wide")).stdout.splitlines()
        assert [word for word in ("START", "CPU TIME", "MEMORY", "THREADS", "FILES") if word not in head] == []
        assert "MiB PSS" in web_line
        assert "MEMORY" not in (await by_hand(tmp_path, "ps")).stdout


async def test_a_restart_drops_no_request_and_replaces_every_instance(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """Start-first types under load, stop-first ones beside: other pids afterwards, the same release, 0 failed."""
    async with served(tmp_path, source) as rig:
        await rig.until_done(Wish().for_(source.add("v1", app(port))))
        before = {row["pid"] for row in (await rows(tmp_path)).values()}
        load = Load(port)
        with load.running():
            await to_thread.run_sync(load.wait_for, "v1")
            done = await by_hand(tmp_path, "restart", "shop")
            await to_thread.run_sync(load.wait_for, "v1")
        after = await rows(tmp_path)
    assert load.failures == []
    assert done.stdout.splitlines()[-1] == "restarted"
    assert "answered by this host's agent" in done.stderr
    assert sorted(after) == ["web.3", "web.4", "worker.1"]
    assert {row["state"] for row in after.values()} == {"ready"}
    assert before.isdisjoint(row["pid"] for row in after.values())


async def test_what_a_person_stops_stays_stopped_whatever_happens_until_it_is_restarted(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """Killed in the middle of its drain it is not started again; nor by a next agent; `ps` says who stopped it."""
    async with served(tmp_path, source, drain=False) as rig:
        report = await rig.until_done(Wish().for_(source.add("v1", app(port))))
        pid = next(view.pid for view in report.instances if view.name == "web.2")
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # it will not end by itself
        asked = partial(rollway, "agent", "stop", "shop", "production", "web.2", "--host-socket")
        async with running_verb(asked, tmp_path):
            await rig.until(lambda report: states(report)["web.2"] == "draining")
            os.kill(pid, signal.SIGKILL)
        shown = (await rows(tmp_path))["web.2"]
        assert (shown["state"], shown["pid"]) == ("stopped", None)
        assert "stopped by a person" in str(shown["detail"])
        assert (await to_thread.run_sync(get, port))["instance"] == "web.1"
        await by_hand(tmp_path, "stop", "shop", "production", "worker")
    async with served(tmp_path, source) as rig:
        after = await rig.until(lambda report: states(report).get("web.1") == "ready")
        assert states(after) == {"web.1": "ready", "web.2": "stopped", "worker.1": "stopped"}
        await by_hand(tmp_path, "restart", "shop", "production", "web.2")
        await by_hand(tmp_path, "restart", "shop", "production", "worker")
        assert {name: row["state"] for name, row in (await rows(tmp_path)).items()} == {
            "web.1": "ready", "web.2": "ready", "worker.1": "ready"
        }  # fmt: skip


@asynccontextmanager
async def running_verb(verb: partial[CompletedProcess[str]], folder: Path) -> AsyncIterator[None]:
    """A verb that is still under way inside, and has ended well after it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_thread.run_sync, partial(verb, folder / "run" / "agent.sock"))
        yield


async def test_a_place_that_cannot_be_is_no_word_for_all_places(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """`web.0` is nobody, by either way of asking: nothing is stopped for it."""
    async with served(tmp_path, source) as rig:
        await rig.until_done(Wish().for_(source.add("v1", app(port))))
        for words in (("stop",), ("agent", "stop")):
            named = (*words, "shop", "production", "web.0", "--host-socket", tmp_path / "run" / "agent.sock")
            done = await to_thread.run_sync(partial(rollway, *named, code=5))
            assert "there is no web.0" in done.stderr
        assert {row["state"] for row in (await rows(tmp_path)).values()} == {"ready"}


async def test_a_restart_that_cannot_come_up_keeps_what_serves(tmp_path: Path, source: FolderSource, port: int) -> None:
    """The release was damaged on the host: exit 1 with the file's name, and the old instance still answers."""
    async with served(tmp_path, source) as rig:
        await rig.until_done(Wish().for_(source.add("v1", app(port, count=1))))
        tree = (tmp_path / "state" / "releases" / APP / "production" / "v1" / "tree").resolve()
        (tree / "VERSION").chmod(0o644)
        (tree / "VERSION").write_text("v9")
        pid = (await to_thread.run_sync(get, port))["pid"]
        done = await by_hand(tmp_path, "restart", "shop", "production", "web", code=1)
        assert f"cannot trust {tree}/VERSION" in done.stderr
        assert "not restarted: web.1" in done.stderr
        assert (await to_thread.run_sync(get, port))["pid"] == pid


def pinned_to(release: ReleaseRef) -> "partial[bool]":
    return partial(_is_pinned, release)


def _is_pinned(release: ReleaseRef, report: AppReport) -> bool:
    serving = [view for view in report.instances if view.process == "web"]
    return (
        (report.aside, report.state, report.release) == ("pinned", "done", release.name)
        and {(view.release, view.state) for view in serving} == {(release.name, "ready")}
    )  # fmt: skip


async def test_going_back_on_the_host_is_not_overridden_until_it_is_released(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """Back to what the order replaces, with no fetch; told in the report; a next agent and a newer order keep it."""
    wish, spec = Wish(), app(port, count=1)
    one, two, three = (source.add(name, spec) for name in ("v1", "v2", "v3"))
    async with served(tmp_path, source, drain=False) as rig:
        await rig.until_done(wish.for_(one))
        nothing = await by_hand(tmp_path, "rollback", "shop", code=1)
        assert "nothing to go back to" in nothing.stderr
        assert "no release is pinned" in (await by_hand(tmp_path, "unpin", "shop", code=4)).stderr
        await rig.until_done(wish.for_(two))
        done = await by_hand(tmp_path, "rollback", "shop")
        assert "shop production is pinned to v1 on this host" in done.stdout
        await rig.until(pinned_to(one))
        assert "shop production is pinned to v1: `rollway agent unpin`" in (await by_hand(tmp_path, "ps")).stderr
        assert (await to_thread.run_sync(get, port))["release"] == "v1"
    async with served(tmp_path, source) as rig:
        await rig.until(pinned_to(one))
        await rig.host.assign(wish.for_(three))
        told = await rig.until(lambda report: report.generation == 3)
        assert _is_pinned(one, told)
        assert "is pinned to v1" in (await by_hand(tmp_path, "rollback", "shop")).stdout
        assert "follows its assignment again: v3" in (await by_hand(tmp_path, "unpin", "shop")).stdout
        await rig.until(lambda report: (report.release, report.state, report.aside) == ("v3", "done", ""))
        assert (await to_thread.run_sync(get, port))["release"] == "v3"


async def test_a_tampered_release_is_not_gone_back_to(tmp_path: Path, source: FolderSource, port: int) -> None:
    """It is verified on the disk before anything is given up for it: exit 1, and nothing has changed."""
    wish, spec = Wish(), app(port, count=1)
    one, two = source.add("v1", spec), source.add("v2", spec)
    async with served(tmp_path, source) as rig:
        await rig.until_done(wish.for_(one))
        await rig.until_done(wish.for_(two))
        tree = (tmp_path / "state" / "releases" / APP / "production" / "v1" / "tree").resolve()
        (tree / "VERSION").chmod(0o644)
        (tree / "VERSION").write_text("v9")
        assert f"{tree}/VERSION" in (await by_hand(tmp_path, "rollback", "shop", code=1)).stderr
        assert (await to_thread.run_sync(get, port))["release"] == "v2"


WITHOUT_CLICK = "import sys; sys.modules['click'] = sys.modules['rich_click'] = sys.modules['rich'] = None; "
WITHOUT_CLICK += "from agent.__main__ import main; main()"


async def test_a_host_without_the_command_lines_libraries_shows_what_runs(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """`rollway ps` and `logs` with the base installation: plain tables and lines; errors are told in words."""
    root, agent = Path(__file__).parents[3], tmp_path / "run" / "agent.sock"

    async def bare(*words: str) -> tuple[int, str]:
        done = await anyio.run_process(
            [sys.executable, "-c", WITHOUT_CLICK, *words, "--host-socket", str(agent)], cwd=root, check=False
        )
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    async with served(tmp_path, source) as rig:
        await rig.until_done(Wish().for_(source.add("v1", app(port, count=1))))
        assert await bare("--version") == (0, f"{version('rollway')}\n")
        code, said = await bare("status")
        assert code == 2
        assert "On a host there are `rollway logs`, `rollway ps`, `rollway restart`, `rollway stop` and" in said
        code, said = await bare("ps", "shop")
        assert code == 0
        assert said.splitlines()[0].split()[:5] == ["HOST", "APP", "ENV", "RELEASE", "INSTANCE"]
        assert said.splitlines()[1].split()[:5] == ["h1", "shop", "production", "v1", "web.1"]
        code, said = await bare("logs", "shop", "production", "worker")
        assert (code, said.split()[1:]) == (0, ["h1", "worker.1", "up"])
        assert await bare("stop", "shop", "production", "web.7") == (
            5, "rollway: there is no web.7 of shop on this host\n  See `rollway ps` on this host.\n"
        )  # fmt: skip
        assert (await bare("ps", "Shop"))[0] == 2
        assert (await bare("ps", "blog")) == (
            5, "rollway: nothing of blog runs on this host\n  There is shop production.\n"
        )  # fmt: skip
