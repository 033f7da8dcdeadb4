"""Servers that people run, swapped under clients that keep their connections: with the notice nobody sees a failure."""

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import anyio
import pytest
from anyio import to_thread
from anyio.abc import TaskStatus

from agent.model.ids import ProcessName
from agent.model.process import AppSpec, HttpCheck, Probe, Probes, StopPolicy
from tests.e2e.fleet import wait_for
from tests.integration.host.rig import DEADLINE_S, running
from tests.integration.host.source import APP, FolderSource, Wish, free_port, web
from tests.integration.middleware.servers import SERVERS, WITHOUT_NOTICE, files

LISTEN: Final = "127.0.0.1"
PAUSE_S: Final = 0.02
CLIENTS: Final = 3
LINGER_MS: Final = {True: 4_000, False: 1_000}
"""With the notice and without: hypercorn, and clients that are not told to leave, take all of it."""
CLOSE_IDLE_CONNECTIONS: Final = ("uvicorn", "hypercorn", "aiohttp", "node")
HAVE_WEBSOCKETS: Final = ("asgi", "uvicorn", "hypercorn", "aiohttp")
GRANIAN: Final = {"asgi": "notice_asgi:app", "wsgi": "notice_wsgi:app"}


def spec(names: tuple[str, ...], ports: dict[str, int], *, notice: bool) -> AppSpec:
    """One process type a server, each on its port; without the notice an app has the middleware left away."""
    way = "" if notice else f"{WITHOUT_NOTICE} "
    ready = Probe(check=HttpCheck(path="/"), period_ms=100, failures=100)
    return AppSpec(
        app=APP,
        processes=tuple(
            web(
                f"{LISTEN}:{ports[name]}",
                count=1,
                name=ProcessName(name),
                command=way + SERVERS[name],
                stop=StopPolicy(linger_ms=LINGER_MS[notice], grace_ms=5_000),
                probes=Probes(startup=ready, readiness=ready),
            )
            for name in names
        ),
    )


class Clients:
    """Of one server: each asks, reads, waits for a moment and asks again on the same connection, as long as it may."""

    def __init__(self, port: int) -> None:
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._port = port
        self._ended = threading.Event()
        self._answered = threading.Condition()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    @contextmanager
    def asking(self) -> Iterator["Clients"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join()

    def wait_for(self, release: str) -> None:
        """Each client, as far as that can be told, has had more than one answer of the release."""
        with self._answered:
            assert self._answered.wait_for(lambda: self.answers.count(release) >= 4 * CLIENTS, DEADLINE_S)

    def _ask(self) -> None:
        client = http.client.HTTPConnection(LISTEN, self._port, timeout=10)
        while not self._ended.wait(PAUSE_S):
            try:
                client.request("GET", "/")
                with client.getresponse() as response:
                    release = json.loads(response.read())["release"]
                with self._answered:
                    self.answers.append(release)
                    self._answered.notify_all()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                client.close()
        client.close()


@contextmanager
def asking(clients: Iterable[Clients]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in clients:
            stack.enter_context(each.asking())
        yield


async def swapped(folder: Path, names: tuple[str, ...], *, notice: bool) -> tuple[dict[str, list[str]], dict[str, int]]:
    """What clients of each server saw fail, and with what code WebSockets were closed, over one swap."""
    (folder / "source").mkdir()
    source, wish = FolderSource(folder / "source"), Wish()
    ports: dict[str, int] = {}
    while len(ports) < len(names):
        if (port := free_port()) not in ports.values():
            ports[names[len(ports)]] = port
    one, two = (source.add(name, spec(names, ports, notice=notice), files=files()) for name in ("v1", "v2"))
    clients = {name: Clients(port) for name, port in ports.items()}
    codes: dict[str, int] = {}
    async with running(folder, source) as rig:
        first = await rig.until_done(wish.for_(one))
        assert first.state == "done", first.reason
        with asking(clients.values()):
            async with anyio.create_task_group() as sockets:
                for name in set(names) & set(HAVE_WEBSOCKETS) if notice else ():
                    await sockets.start(until_closed, name, ports[name], codes)
                for each in clients.values():
                    await to_thread.run_sync(each.wait_for, "v1")
                second = await rig.until_done(wish.for_(two))
                assert second.state == "done", second.reason
                for each in clients.values():
                    await to_thread.run_sync(each.wait_for, "v2")
    return {name: each.failures for name, each in clients.items()}, codes


async def until_closed(name: str, port: int, codes: dict[str, int], *, task_status: TaskStatus[None]) -> None:
    """Speak on a WebSocket until the server closes it; with what code it did."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://{LISTEN}:{port}/ws", timeout=aiohttp.ClientWSTimeout(ws_close=5)) as socket,
    ):
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=DEADLINE_S) == "hello"
        task_status.started()
        message = await socket.receive(timeout=DEADLINE_S)
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        codes[name] = message.data


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_with_the_notice_nobody_sees_a_failure(tmp_path: Path) -> None:
    """Six servers swapped at once: no request on a kept connection fails, and WebSockets are told to come back."""
    failures, codes = await swapped(tmp_path, tuple(SERVERS), notice=True)
    assert failures == {name: [] for name in SERVERS}
    assert codes == dict.fromkeys(HAVE_WEBSOCKETS, 1012)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_without_it_who_asks_next_finds_the_connection_closed(tmp_path: Path) -> None:
    """The same servers without the middleware close the connections that are idle: whoever asks next has lost."""
    failures, _codes = await swapped(tmp_path, CLOSE_IDLE_CONNECTIONS, notice=False)
    assert {name for name in CLOSE_IDLE_CONNECTIONS if not failures[name]} == set(), "served all, unasked"


@pytest.mark.parametrize("interface", GRANIAN)
def test_granian_tells_its_clients(interface: str, tmp_path: Path) -> None:
    """Granian, which binds its own port, closes connections after an answer that says so, while the notice is there."""
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    port = free_port()
    words = [sys.executable, "-m", "granian", "--interface", interface, "--host", LISTEN, "--port", str(port)]
    environment = {**os.environ, "ROLLWAY_RELEASE": "v1", "ROLLWAY_DRAIN_FILE": str(tmp_path / "drain")}
    log = (tmp_path / "log").open("w")
    with log, subprocess.Popen([*words, GRANIAN[interface]], cwd=tmp_path, env=environment, stdout=log) as process:
        try:
            client = http.client.HTTPConnection(LISTEN, port, timeout=10)
            wait_for("granian listens", lambda: _connects(client))
            assert _ask(client) is None
            (tmp_path / "drain").touch()
            wait_for("it says so", lambda: _ask(client) == "close")
            assert client.sock is None
            (tmp_path / "drain").unlink()
            wait_for("it says so no more", lambda: _ask(client) is None)
        finally:
            process.terminate()


def _connects(client: http.client.HTTPConnection) -> bool:
    try:
        client.connect()
    except OSError:
        return False
    return True


def _ask(client: http.client.HTTPConnection) -> str | None:
    client.request("GET", "/")
    with client.getresponse() as response:
        response.read()
        return response.getheader("Connection")
