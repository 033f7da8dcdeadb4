"""A type that listens on an address of IPv6 alone: each instance is asked for itself, and users reach who is ready."""

import http.client
import json
from collections import Counter
from pathlib import Path
from typing import Final

import anyio
import pytest
from anyio import to_thread
from msgspec.structs import replace

from agent.model.process import AppSpec, Probe, Probes, TcpCheck
from tests.integration.host.rig import Rig, running
from tests.integration.host.source import APP, READY, SAMPLE, FolderSource, Wish, free_port, web

pytestmark = pytest.mark.anyio
HOST: Final = "::1"
WORDS: Final = "self.send_response(200)"
NOT_READY: Final = "self.send_response(503 if Path('{}').read_text() == os.environ['ROLLWAY_INSTANCE'] else 200)"


def answers(port: int, count: int = 60) -> Counter[str]:
    """Which instances answer so many plain users of this host."""
    found = Counter[str]()
    for _ in range(count):
        client = http.client.HTTPConnection(HOST, port, timeout=10)
        client.request("GET", "/")
        found[json.load(client.getresponse())["instance"]] += 1
        client.close()
    return found


async def seen(rig: Rig, ill: Path, port: int, name: str) -> None:
    """Once `name` answers its probes with 503 it alone is unready, and plain users reach the others."""
    await anyio.Path(ill).write_text(name)
    expected = {f"web.{n}": "unready" if f"web.{n}" == name else "ready" for n in (1, 2, 3)}
    await rig.until(lambda report: {view.name: view.state for view in report.instances} == expected)
    assert set(await to_thread.run_sync(answers, port)) == {*expected} - {name}


async def test_who_is_unready_is_seen_and_gets_nobody(tmp_path: Path) -> None:
    """Each of three in its turn, and under the next agent too, until it is well again."""
    (folder := tmp_path / "source").mkdir()
    (ill := tmp_path / "ill").write_text("")
    source, port = FolderSource(folder), free_port()
    assert WORDS in SAMPLE
    probes = Probes(startup=Probe(check=TcpCheck(), period_ms=100, failures=100), readiness=replace(READY, failures=1))
    spec = AppSpec(app=APP, processes=(web(f"[{HOST}]:{port}", 3, probes=probes),))
    files = {"sample.py": SAMPLE.replace(WORDS, NOT_READY.format(ill))}
    async with running(tmp_path, source, drain=False) as rig:
        done = await rig.until_done(Wish().for_(source.add("v1", spec, files=files)))
        assert [view.state for view in done.instances] == ["ready"] * 3, done.reason
        assert set(await to_thread.run_sync(answers, port)) == {"web.1", "web.2", "web.3"}
        for name in ("web.2", "web.3"):
            await seen(rig, ill, port, name)
    async with running(tmp_path, FolderSource(tmp_path / "nowhere")) as rig:
        for name in ("web.1", "web.2"):
            await seen(rig, ill, port, name)
        ill.write_text("")
        after = await rig.until(lambda report: {view.state for view in report.instances} == {"ready"})
        assert {view.pid for view in after.instances} == {view.pid for view in done.instances}
        assert set(await to_thread.run_sync(answers, port)) == {"web.1", "web.2", "web.3"}


async def test_a_host_on_which_nobody_can_choose_says_so_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where hop limit and traffic class are rewritten probes ask any instance, and one event says it."""
    monkeypatch.setattr("agent.linux.sockets.set_mark", lambda _ours, _mark: None)
    (folder := tmp_path / "source").mkdir()
    source, port = FolderSource(folder), free_port()
    spec = AppSpec(app=APP, processes=(web(f"[{HOST}]:{port}", 2),))
    async with running(tmp_path, source) as rig:
        done = await rig.until_done(Wish().for_(source.add("v1", spec)))
        assert [view.state for view in done.instances] == ["ready", "ready"], done.reason
        assert set(await to_thread.run_sync(answers, port)) == {"web.1", "web.2"}
        said = [event for event in rig.events if str(event["event"]).startswith("probes ask any instance")]
        assert [event["address"] for event in said] == [f"[{HOST}]:{port}"]
