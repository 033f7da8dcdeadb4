"""The sample app: built twice it is one build, and its release runs with the host's python3 and nothing else."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from agent.artifacts.build import Built, build_ref
from agent.artifacts.manifest import read_manifest
from agent.artifacts.unpack import unpack, verify

SHOP = Path(__file__).parents[3] / "config" / "examples" / "shop"
DEADLINE_S = 20

Json = dict[str, object]
Start = Callable[..., AbstractContextManager["Running"]]


class Running:
    """A process of the shop, its log lines, and the socket that it was handed."""

    def __init__(self, process: subprocess.Popen[str], listener: socket.socket) -> None:
        self.process = process
        self._listener = listener

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._listener.getsockname()[1], timeout=DEADLINE_S)

    def line(self, message: str) -> Json:
        """The next log line with this message."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found: Json = json.loads(line)
            if found.get("message") == message:
                return found
        raise AssertionError(f"the process ended without saying {message!r}")


def commit_shop(repo: Path, version: str) -> Path:
    shutil.copytree(SHOP, repo, ignore=shutil.ignore_patterns("lib", "__pycache__"))
    (repo / "VERSION").write_text(f"{version}\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    environment = {**os.environ, "GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000"}
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *words], cwd=repo, env=environment, check=True)
    return repo


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    return build_ref(commit_shop(folder / "shop", "1.0.0"), "HEAD", "1.0.0", folder / "out", lambda _: None)


@pytest.fixture
def start(built: Built, tmp_path: Path) -> Start:
    """Start a command of the unpacked release as an agent does: its own socket on fd 3, a bare environment."""
    tree = tmp_path / "release"
    unpack(built.archive, read_manifest(built.manifest), tree)
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"sqlite:///{tmp_path}/shop.db",
        "ROLLWAY_RELEASE": "v1.0.0",
        "ROLLWAY_DRAIN_FILE": str(tmp_path / "drain"),
        "TMPDIR": str(tmp_path),
    }

    @contextmanager
    def run(command: str, folder: Path = tree) -> Iterator[Running]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            handed = f'exec 3<&{listener.fileno()}; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0"'
            process = subprocess.Popen(
                ["bash", "-c", handed, command],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                text=True,
            )
            with process:
                try:
                    yield Running(process, listener)
                finally:
                    process.terminate()
                    process.wait(DEADLINE_S)

    return run


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
    connection.request(method, path, None if body is None else json.dumps(body), {"X-Request-Id": "r-1"})
    with connection.getresponse() as response:
        answer: Json = json.loads(response.read())
        return response.status, answer


def migrate(start: Start) -> None:
    with start("bin/migrate") as running:
        running.line("the database has the schema of this release")
        assert running.process.wait(DEADLINE_S) == 0


def test_the_shop_is_the_same_build_anywhere(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its dependencies and their bytecode, in another folder and under another umask: the same bytes."""
    (tmp_path / "another scratch folder").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "another scratch folder"))
    before = os.umask(0o077)
    try:
        again = build_ref(commit_shop(tmp_path / "again", "1.0.0"), "HEAD", "1.0.0", tmp_path / "out", lambda _: None)
    finally:
        os.umask(before)
    assert again.manifest == built.manifest


def test_the_web_front_takes_orders_and_a_worker_fulfils_them(start: Start, built: Built, tmp_path: Path) -> None:
    """From the migration (twice) over the order to the worker's drain, nothing is lost or done twice."""
    migrate(start)
    migrate(start)
    with start("bin/web") as web:
        connection = web.connect()
        assert ask(connection, "GET", "/") == (
            200,
            {"version": "1.0.0", "release": "v1.0.0", "message": "welcome to the shop"},
        )
        assert [ask(connection, "GET", path)[0] for path in ("/startup", "/ready", "/live")] == [200, 200, 200]
        for number in range(5):
            assert ask(connection, "POST", "/orders", {"item": "tea", "id": f"o{number}"})[0] == 201
        assert ask(connection, "POST", "/orders", {"item": "tea", "id": "o0"})[0] == 201
        assert ask(connection, "GET", "/orders")[1]["open"] == 5
        with start("bin/worker") as worker:
            assert sorted(str(worker.line("order fulfilled")["order"]) for _ in range(5)) == [f"o{n}" for n in range(5)]
            worker.process.terminate()
            worker.line("worker drained")
            assert worker.process.wait(DEADLINE_S) == 0
        counted = ask(connection, "GET", "/orders")[1]
        assert (counted["open"], counted["done"]) == (0, 5)
        connection.close()
        web.process.terminate()
        assert web.process.wait(DEADLINE_S) == 0
    verify(tmp_path / "release", built.build)


def test_bad_orders_are_refused(start: Start) -> None:
    """What is no order gets an answer that says what was expected."""
    migrate(start)
    with start("bin/web") as web:
        connection = web.connect()
        assert ask(connection, "POST", "/orders", {"thing": "tea"})[0] == 400
        assert ask(connection, "POST", "/orders", {"item": 1})[0] == 400
        assert ask(connection, "GET", "/nothing")[0] == 404
        assert ask(connection, "POST", "/orders", {"item": "x" * 70_000})[0] == 413
        connection.close()


def test_the_drain_notice_closes_connections(start: Start, tmp_path: Path) -> None:
    """A client that keeps its connection is told to leave once the drain file is there, and only then."""
    migrate(start)
    with start("bin/web") as web:
        connection = web.connect()
        for expected in ("keep-alive", "close"):
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            assert response.getheader("Connection") == expected
            (tmp_path / "drain").touch()


def test_each_request_is_a_line(start: Start) -> None:
    """The access log says in JSON what was asked and answered, and how long it took, under the client's request id."""
    migrate(start)
    with start("bin/web") as web:
        ask(web.connect(), "GET", "/live")
        assert web.process.stdout is not None
        line = json.loads(web.process.stdout.readline())
    assert line.pop("ts").endswith("Z")
    assert line.pop("duration_ms") >= 0
    assert line == {"method": "GET", "path": "/live", "status": 200, "request_id": "r-1"}


def test_two_schedulers_make_one_heartbeat(start: Start) -> None:
    """A scheduler on each of several hosts writes no more rows than one."""
    migrate(start)
    with start("bin/scheduler") as one, start("bin/scheduler") as two:
        ticks = [running.line("tick") for running in (one, two) for _ in range(2)]
        two.process.terminate()
        two.line("scheduler drained")
        assert two.process.wait(DEADLINE_S) == 0
    firsts = [tick["tick"] for tick in ticks if tick["is_first"]]
    assert len(firsts) == len(set(firsts))
    assert set(firsts) >= {ticks[1]["tick"]} & {ticks[2]["tick"], ticks[3]["tick"]}


def test_a_broken_version_never_becomes_ready(tmp_path: Path, start: Start) -> None:
    """A version that ends in -broken starts and lives, but its readiness probe fails."""
    migrate(start)
    copy = tmp_path / "broken"
    shutil.copytree(tmp_path / "release", copy)
    copy.chmod(0o755)
    (copy / "VERSION").unlink()
    (copy / "VERSION").write_text("3.0.0-broken\n")
    with start("bin/web", copy) as web:
        connection = web.connect()
        assert [ask(connection, "GET", path)[0] for path in ("/startup", "/ready", "/live")] == [200, 500, 200]
        assert ask(connection, "GET", "/")[1]["version"] == "3.0.0-broken"
        connection.close()
