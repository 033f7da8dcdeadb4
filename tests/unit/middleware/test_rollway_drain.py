"""What the middleware does to the messages of an app: nothing without a notice; with one, connections end in order."""

import ast
import asyncio
import gc
import os
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from rollway_drain import ASGI, WSGI, Notice, aiohttp_response_prepare, gunicorn_pre_request, noticed

MODULE: Final = Path(__file__).parents[3] / "middleware" / "rollway_drain.py"
DEADLINE_S: Final = 10
HEADERS: Final = [(b"content-length", b"2"), (b"Connection", b"keep-alive")]
CLOSING: Final = [(b"content-length", b"2"), (b"connection", b"close")]
Message = MutableMapping[str, Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "drain"


def show(file: Path) -> None:
    file.touch()


def hide(file: Path) -> None:
    file.unlink()


def notice(file: Path | str) -> Notice:
    """One that looks each time."""
    return Notice(str(file), look_s=0)


async def answer(_scope: Message, _receive: object, send: Callable[[Message], Any]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})


async def headers_of(app: ASGI, http_version: str = "1.1") -> list[tuple[bytes, bytes]]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    await app({"type": "http", "http_version": http_version}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return list(sent[0]["headers"])


@pytest.mark.anyio
async def test_answers_say_close_while_the_notice_is_there(file: Path) -> None:
    """Answers are the app's own, then say `Connection: close` and nothing else of it, then are its own again."""
    app = ASGI(answer, notice(file))
    assert await headers_of(app) == HEADERS
    show(file)
    assert await headers_of(app) == CLOSING
    hide(file)
    assert await headers_of(app) == HEADERS


@pytest.mark.anyio
async def test_an_answer_that_began_before_the_notice_says_close(file: Path) -> None:
    """A request that was in hand when the notice appeared is the last one of its connection."""

    async def slow(scope: Message, receive: object, send: Callable[[Message], Any]) -> None:
        show(file)
        await answer(scope, receive, send)

    assert await headers_of(ASGI(slow, notice(file))) == CLOSING


@pytest.mark.anyio
async def test_http2_has_no_such_header(file: Path) -> None:
    """Over HTTP/2, where `Connection` is an error, an answer stays as it is."""
    show(file)
    app = ASGI(answer, notice(file))
    assert await headers_of(app, "2") == HEADERS
    assert await headers_of(app, "1.0") == CLOSING


@pytest.mark.anyio
async def test_without_a_notice_to_come_the_app_gets_what_the_server_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing names a notice (not under Rollway), app and server speak without anything between them."""
    monkeypatch.delenv("ROLLWAY_DRAIN_FILE", raising=False)
    given: list[object] = []

    async def app(*arguments: object) -> None:
        given.extend(arguments)

    scope, receive, send = {"type": "websocket"}, object(), object()
    await ASGI(app, Notice())(scope, receive, send)  # type: ignore[arg-type]  # only carried through
    assert [id(one) for one in given] == [id(scope), id(receive), id(send)]
    assert not Notice()()


HOSTILE: dict[str, Callable[[Path], Path | str]] = {
    "its folder is gone": lambda folder: folder / "none" / "drain",
    "its folder is a file": lambda folder: Path(sys.executable) / "drain",
    "its name is longer than names may be": lambda folder: folder / ("x" * 5_000),
    "its name cannot be one": lambda folder: "\0",
    "a link that leads to itself": lambda folder: _loop(folder / "loop"),
}


def _loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


@pytest.mark.anyio
@pytest.mark.parametrize("path", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_notice_that_cannot_be_looked_for_is_none(path: Callable[[Path], Path | str], tmp_path: Path) -> None:
    """Whatever is wrong with the file's place, requests are answered as if there were no notice."""
    assert await headers_of(ASGI(answer, notice(path(tmp_path)))) == HEADERS


def test_a_folder_that_may_not_be_read_is_no_notice(tmp_path: Path) -> None:
    """A folder that the app's user may not enter gives no error, and no notice."""
    (tmp_path / "drain").touch()
    tmp_path.chmod(0)
    code = "import rollway_drain, os; os.getuid() or os.setuid(65534); print(rollway_drain.draining())"
    environment = {**os.environ, "ROLLWAY_DRAIN_FILE": str(tmp_path / "drain"), "PYTHONPATH": str(MODULE.parent)}
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-c", code], env=environment, capture_output=True, text=True, check=False
        )
    finally:
        tmp_path.chmod(0o700)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_the_file_is_not_looked_for_at_each_request(file: Path) -> None:
    """However often it is asked, the file is looked for once in its time: what it said last is said meanwhile."""
    slow = Notice(str(file), look_s=3_600)
    assert not slow()
    show(file)
    assert not any(slow() for _ in range(1_000))
    assert Notice(str(file), look_s=3_600)()


@pytest.mark.anyio
async def test_who_waits_for_the_notice_is_told(file: Path) -> None:
    """`await noticed()` returns when the notice appears, not before."""
    waiting = asyncio.ensure_future(noticed(notice(file)))
    await asyncio.sleep(0)
    assert not waiting.done()
    show(file)
    await asyncio.wait_for(waiting, DEADLINE_S)


class Client:
    """The other end of one WebSocket, as a server would carry it: what the app was given and what it sent."""

    def __init__(self) -> None:
        self.confirms = True
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.given: asyncio.Queue[Message] = asyncio.Queue()
        self.given.put_nowait({"type": "websocket.connect"})

    async def send(self, message: Message) -> None:
        await self.sent.put(message)
        if message["type"] == "websocket.close" and self.confirms:
            await self.given.put({"type": "websocket.disconnect", "code": message["code"]})

    async def next(self) -> Message:
        return await asyncio.wait_for(self.sent.get(), DEADLINE_S)


@asynccontextmanager
async def connected(app: ASGI) -> AsyncIterator[Client]:
    """A WebSocket that the app serves; at the end the app must have returned by itself."""
    client = Client()
    served = asyncio.ensure_future(app({"type": "websocket"}, client.given.get, client.send))
    try:
        yield client
        await asyncio.wait_for(served, DEADLINE_S)
    finally:
        served.cancel()


async def echo(_scope: Message, receive: Callable[[], Any], send: Callable[[Message], Any]) -> None:
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "text": message["text"]})


@pytest.mark.anyio
async def test_websockets_are_told_to_come_back(file: Path) -> None:
    """Open WebSockets, and those that are opened while the notice is there, are accepted and closed with 1012."""
    app = ASGI(echo, notice(file), spread_s=0)
    async with connected(app) as one, connected(app) as two:
        for client in (one, two):
            assert (await client.next())["type"] == "websocket.accept"
            client.given.put_nowait({"type": "websocket.receive", "text": "hello"})
            assert (await client.next())["text"] == "hello"
        show(file)
        for client in (one, two):
            closed = await client.next()
            assert (closed["type"], closed["code"]) == ("websocket.close", 1012)
    async with connected(app) as late:
        assert [(await late.next())["type"] for _ in range(2)] == ["websocket.accept", "websocket.close"]


@pytest.mark.anyio
async def test_websockets_after_the_notice_is_gone_are_served(file: Path) -> None:
    """A notice that goes again closes nobody any more, whoever is still there from before."""
    show(file)
    app = ASGI(echo, notice(file), spread_s=0)
    async with connected(app) as deaf:
        deaf.confirms = False
        assert [(await deaf.next())["type"] for _ in range(2)] == ["websocket.accept", "websocket.close"]
        hide(file)
        for _ in range(5):
            await asyncio.sleep(0)
        async with connected(app) as after:
            assert (await after.next())["type"] == "websocket.accept"
            for _ in range(5):
                await asyncio.sleep(0)
            after.given.put_nowait({"type": "websocket.receive", "text": "still here"})
            assert (await after.next()).get("text") == "still here"
            after.given.put_nowait({"type": "websocket.disconnect", "code": 1000})
        deaf.given.put_nowait({"type": "websocket.disconnect", "code": 1006})


@pytest.mark.anyio
async def test_an_app_that_sends_on_sees_an_error_that_it_knows(file: Path) -> None:
    """After the close an app that only sends gets an OSError, as from a client that has left; nothing more is sent."""
    raised: list[OSError] = []

    async def ticker(_scope: Message, _receive: object, send: Callable[[Message], Any]) -> None:
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(0)
        except OSError as error:
            raised.append(error)

    async with connected(ASGI(ticker, notice(file), spread_s=0)) as client:
        show(file)
        while (await client.next())["type"] != "websocket.close":
            pass
    assert client.sent.empty()
    assert len(raised) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("gone", [OSError, RuntimeError])
async def test_a_client_that_has_left_is_no_error(file: Path, gone: type[Exception]) -> None:
    """A close that the server refuses, since the client is gone, is felt by nobody."""
    show(file)
    tried = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "websocket.close":
            tried.set()
            raise gone

    async def app(_scope: Message, _receive: object, send: Callable[[Message], Any]) -> None:
        await send({"type": "websocket.accept"})
        await asyncio.wait_for(tried.wait(), DEADLINE_S)

    loop, errors = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _loop, context: errors.append(context))
    await ASGI(app, notice(file), spread_s=0)({"type": "websocket"}, asyncio.Queue().get, send)
    gc.collect()  # when a task whose error nobody took is told of
    assert errors == []


@pytest.mark.anyio
async def test_what_the_app_has_ended_is_not_ended_twice(file: Path) -> None:
    """An app that closes, or refuses, by itself has the last word."""

    async def app(_scope: Message, _receive: object, send: Callable[[Message], Any]) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})
        show(file)
        await noticed(notice(file))
        for _ in range(20):
            await asyncio.sleep(0)

    async with connected(ASGI(app, notice(file), spread_s=0)) as client:
        pass
    assert [client.sent.get_nowait().get("code") for _ in range(client.sent.qsize())] == [None, 4000]


def test_under_another_event_loop_websockets_are_left_alone(file: Path) -> None:
    """Where no asyncio runs (hypercorn's trio worker) an app's WebSocket is served as if there were no notice."""
    given: list[object] = []

    async def app(*arguments: object) -> None:
        given.extend(arguments)

    scope, receive, send = {"type": "websocket"}, object(), object()
    serving = ASGI(app, notice(file))(scope, receive, send)  # type: ignore[arg-type]  # only carried through
    with pytest.raises(StopIteration):
        serving.send(None)
    assert [id(one) for one in given] == [id(scope), id(receive), id(send)]


@pytest.mark.anyio
async def test_nothing_is_left_when_all_websockets_are_gone(file: Path) -> None:
    """An app without an open WebSocket has no task that looks for a notice."""
    app, before = ASGI(echo, notice(file)), asyncio.all_tasks()
    async with connected(app) as client:
        client.given.put_nowait({"type": "websocket.disconnect", "code": 1001})
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def wsgi_headers(app: WSGI, server: str) -> list[tuple[str, str]]:
    started: list[tuple[str, str]] = []

    def start_response(_status: str, headers: list[tuple[str, str]], *_error: object) -> None:
        started.extend(headers)

    assert b"".join(app({"SERVER_SOFTWARE": server}, start_response)) == b"ok"
    return started


def wsgi_answer(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def test_wsgi_says_close_where_a_server_takes_it(file: Path) -> None:
    """Granian is told; a server that would fail such an answer (wsgiref, waitress) or drop it (gunicorn) is not."""
    app, length = WSGI(wsgi_answer, notice(file)), ("Content-Length", "2")
    assert wsgi_headers(app, "Granian") == [length]
    show(file)
    assert wsgi_headers(app, "Granian") == [length, ("Connection", "close")]
    assert wsgi_headers(WSGI(wsgi_answer, notice(file), always=True), "other") == [length, ("Connection", "close")]
    for server in ("WSGIServer/0.2", "waitress", "gunicorn/27.0.1", ""):
        assert wsgi_headers(app, server) == [length]
    hide(file)
    assert wsgi_headers(app, "Granian") == [length]


@pytest.mark.anyio
async def test_hooks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hooks for gunicorn and aiohttp end a connection in their server's way, with a notice and not without."""
    monkeypatch.setattr("rollway_drain.draining", notice(file))
    closed: list[str] = []

    def response(status: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(status=status, headers={}, force_close=lambda: closed.append(str(status)))

    for expected in ([], ["request", "200"]):
        gunicorn_pre_request(None, types.SimpleNamespace(force_close=lambda: closed.append("request")))
        for status in (101, 200):
            await aiohttp_response_prepare(None, response(status))
        assert closed == expected
        show(file)


def test_it_is_one_file_for_old_pythons() -> None:
    """It imports the standard library alone, and is written in what Python 3.8 knows."""
    tree = ast.parse(MODULE.read_text(), feature_version=(3, 8))
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    others = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in plain | others} <= sys.stdlib_module_names
