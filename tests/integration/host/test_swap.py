"""One host's part of a swap, with real processes, sockets and files: what users and operators see of it."""

import http.client
import json
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
from anyio import to_thread
from msgspec import structs

from agent.linux import procfs
from agent.model.process import AppSpec, Limits, ProcessType
from agent.model.release import ConfigValue
from tests.integration.host.rig import DEADLINE_S, running
from tests.integration.host.source import APP, FolderSource, Wish, free_port, release_command, web
from tests.integration.limits import no_more_fds

pytestmark = pytest.mark.anyio

LISTEN = "127.0.0.1"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def source(tmp_path: Path) -> FolderSource:
    folder = tmp_path / "source"
    folder.mkdir()
    return FolderSource(folder)


def app(*types: ProcessType, **more: object) -> AppSpec:
    return AppSpec(app=APP, processes=types, **more)  # type: ignore[arg-type]  # the two keys that tests give


def get(port: int) -> dict[str, object]:
    with urllib.request.urlopen(f"http://{LISTEN}:{port}/", timeout=10) as answer:
        found: dict[str, object] = json.load(answer)
        return found


@contextmanager
def stranger_on(port: int, *, reuse_port: bool = False) -> Iterator[int]:
    """Another program that listens on `port`; its pid."""
    listen = f"s = socket.create_server(({LISTEN!r}, {port}), reuse_port={reuse_port})"
    code = f"import socket; {listen}; print('up', flush=True); input()"
    with Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, text=True) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "up\n"
        yield stranger.pid
        stranger.kill()


class Load:
    """Clients that ask without pause: half with a connection per request, half keeping theirs as long as they may."""

    def __init__(self, port: int, clients: int = 6) -> None:
        self.releases: list[str] = []
        self.failures: list[str] = []
        self._port = port
        self._ended = threading.Event()
        self._answered = threading.Condition()
        self._threads = [threading.Thread(target=self._ask, args=(n % 2 == 0,)) for n in range(clients)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join()

    def wait_for(self, release: str, answers: int = 50) -> None:
        """Return once so many more answers have come from `release`."""
        with self._answered:
            before = self.releases.count(release)
            assert self._answered.wait_for(lambda: self.releases.count(release) >= before + answers, DEADLINE_S)

    def _ask(self, keeps: bool) -> None:  # noqa: FBT001 - the argument of a thread
        client = http.client.HTTPConnection(LISTEN, self._port, timeout=10)
        while not self._ended.is_set():
            try:
                client.request("GET", "/")
                answer = client.getresponse()
                body = answer.read()
                if not keeps:
                    client.close()
                if answer.status == http.client.OK:
                    with self._answered:
                        self.releases.append(json.loads(body)["release"])
                        self._answered.notify_all()
                else:
                    self.failures.append(f"status {answer.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                client.close()
        client.close()


async def test_a_swap_under_load_fails_no_request(tmp_path: Path, source: FolderSource, port: int) -> None:
    """Two instances of v1 become two of v2 while new and kept connections ask on; each request is answered by one."""
    spec = app(web(f"{LISTEN}:{port}"))
    one, two = source.add("v1", spec), source.add("v2", spec)
    wish = Wish()
    async with running(tmp_path, source) as rig:
        first = await rig.until_done(wish.for_(one))
        assert [(view.name, view.state) for view in first.instances] == [("web.1", "ready"), ("web.2", "ready")]
        load = Load(port)
        with load.running():
            await to_thread.run_sync(load.wait_for, "v1")
            second = await rig.until_done(wish.for_(two))
            await to_thread.run_sync(load.wait_for, "v2")
        assert second.state == "done", second.reason
        assert {view.release for view in second.instances} == {"v2"}
        assert load.failures == []
        assert load.releases[-1] == "v2"


async def test_a_killed_instance_is_back_and_its_neighbour_serves_meanwhile(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """A kill -9 of one of two instances: it is restarted under a new pid, and requests made then are answered."""
    wish = Wish()
    async with running(tmp_path, source) as rig:
        report = await rig.until_done(wish.for_(source.add("v1", app(web(f"{LISTEN}:{port}")))))
        killed = report.instances[0].pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        after = await rig.until(
            lambda report: report.instances[0].state == "ready" and report.instances[0].pid != killed
        )
        assert after.instances[0].restarts == 1
        assert (await to_thread.run_sync(get, port))["release"] == "v1"


async def test_an_agent_that_was_killed_leaves_its_app_to_the_next(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """The next agent takes up the very processes of the first, with no coordinator and no fetch."""
    wish = Wish()
    async with running(tmp_path, source, drain=False) as rig:
        before = await rig.until_done(wish.for_(source.add("v1", app(web(f"{LISTEN}:{port}")))))
    empty = FolderSource(tmp_path / "nowhere")
    async with running(tmp_path, empty) as rig:
        after = await rig.until(lambda report: [view.state for view in report.instances] == ["ready", "ready"])
        assert after.state == "done"
        assert {view.pid for view in after.instances} == {view.pid for view in before.instances}
        assert (await to_thread.run_sync(get, port))["release"] == "v1"
        assert empty.archives_fetched == 0


async def test_a_tampered_release_is_refused_by_file_name(tmp_path: Path, source: FolderSource, port: int) -> None:
    """A file of a release that was changed on the host keeps that release from starting, and the report names it."""
    wish = Wish()
    spec = app(web(f"{LISTEN}:{port}", count=1))
    one, two = source.add("v1", spec), source.add("v2", spec)
    async with running(tmp_path, source) as rig:
        await rig.until_done(wish.for_(one))
        await rig.until_done(wish.for_(two))
        tree = (tmp_path / "state" / "releases" / APP / "production" / "v1" / "tree").resolve()
        (tree / "VERSION").chmod(0o644)
        (tree / "VERSION").write_text("v9")
        report = await rig.until_done(wish.for_(one))
        assert report.state == "failed"
        assert f"cannot trust {tree}/VERSION" in report.reason
        assert (await to_thread.run_sync(get, port))["release"] == "v2"


async def test_an_address_that_the_host_does_not_have_is_refused_in_words(tmp_path: Path, source: FolderSource) -> None:
    """The swap fails and says which address it was; the agent goes on."""
    async with running(tmp_path, source) as rig:
        report = await rig.until_done(Wish().for_(source.add("v1", app(web("192.0.2.1:80", count=1)))))
        assert report.state == "failed"
        assert [one["level"] for one in rig.events if one["event"] == "swap"][-1] == "error"
        assert "cannot listen on 192.0.2.1:80: Cannot assign requested address" in report.reason


async def test_an_app_that_shuts_its_socket_down_gets_it_back(tmp_path: Path, source: FolderSource, port: int) -> None:
    """An instance that ends with shutdown() on its inherited socket is served again once it was restarted."""
    ref = source.add("v1", app(web(f"{LISTEN}:{port}", count=1)), config={"RUDE": ConfigValue(plain="1")})
    async with running(tmp_path, source) as rig:
        report = await rig.until_done(Wish().for_(ref))
        pid = report.instances[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        await rig.until_event("listening socket was shut down by its instance")
        await rig.until(lambda report: report.instances[0].pid != pid and report.instances[0].state == "ready")
        assert (await to_thread.run_sync(get, port))["release"] == "v1"


async def test_an_app_that_shuts_its_socket_down_to_end_is_felt_by_nobody(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """While instances that did so go on for a second, everybody is answered by the new ones."""
    wish, spec, rude = Wish(), app(web(f"{LISTEN}:{port}")), {"RUDE": ConfigValue(plain="1")}
    async with running(tmp_path, source) as rig:
        await rig.until_done(wish.for_(source.add("v1", spec, config=rude)))
        load = Load(port)
        with load.running():
            await to_thread.run_sync(load.wait_for, "v1")
            report = await rig.until_done(wish.for_(source.add("v2", spec)))
            await to_thread.run_sync(load.wait_for, "v2")
    assert (report.state, load.failures) == ("done", [])


async def test_somebody_who_joins_our_address_is_named(tmp_path: Path, source: FolderSource, port: int) -> None:
    """A program of the same user that listens beside the instances, with SO_REUSEPORT, is told by pid in an event."""
    async with running(tmp_path, source) as rig:
        await rig.until_done(Wish().for_(source.add("v1", app(web(f"{LISTEN}:{port}", count=1)))))
        with stranger_on(port, reuse_port=True) as pid:
            event = await rig.until_event("somebody else listens on our address")
    assert (event["address"], event["pid"]) == (f"{LISTEN}:{port}", pid)


async def test_a_host_that_cannot_see_who_listens_serves_on(tmp_path: Path, source: FolderSource, port: int) -> None:
    """Where the kernel does not say who listens that is told once, and ends neither the agent nor what it runs."""
    async with running(tmp_path, source) as rig:
        await rig.until_done(Wish().for_(source.add("v1", app(web(f"{LISTEN}:{port}", count=1)))))
        with no_more_fds():
            await rig.until_event("cannot see who listens on our addresses")
        await rig.until(lambda report: report.instances[0].state == "ready")
        assert (await to_thread.run_sync(get, port))["release"] == "v1"


async def test_a_taken_port_names_who_has_it(tmp_path: Path, source: FolderSource, port: int) -> None:
    """When a stranger listens on the address the swap fails, and says address, pid and command of the stranger."""
    with stranger_on(port) as pid:
        async with running(tmp_path, source) as rig:
            report = await rig.until_done(Wish().for_(source.add("v1", app(web(f"{LISTEN}:{port}", count=1)))))
    assert report.state == "failed"
    assert f"cannot listen on {LISTEN}:{port}: pid {pid} (" in report.reason
    assert "web.1 cannot start" in report.reason


async def test_an_assignment_that_the_first_agent_never_saw_moves_what_it_left(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """What was ordered while there was no agent is done by the next one, instance by instance as always."""
    wish, spec = Wish(), app(web(f"{LISTEN}:{port}"))
    async with running(tmp_path, source, drain=False) as rig:
        before = await rig.until_done(wish.for_(source.add("v1", spec)))
    async with running(tmp_path, source) as rig:
        report = await rig.until_done(wish.for_(source.add("v2", spec)))
        assert (report.state, report.reason) == ("done", "")
        assert {view.release for view in report.instances} == {"v2"}
        assert (await to_thread.run_sync(get, port))["release"] == "v2"
        left = [procfs.process(view.pid or 0) for view in before.instances]
        assert all(found is None or found.state == "Z" for found in left)


async def test_a_procfile_type_binds_its_own_port(tmp_path: Path, source: FolderSource, port: int) -> None:
    """`bind = "port"`: the instance finds PORT, is ready once it answers there, and a swap stops the old one first."""
    wish = Wish()
    spec = app(web(f"{LISTEN}:{port}", count=1, bind="port", swap="stop-first", command=f"python3 sample.py {LISTEN}"))
    async with running(tmp_path, source) as rig:
        for name in ("v1", "v2"):
            report = await rig.until_done(wish.for_(source.add(name, spec)))
            assert report.state == "done", report.reason
            answer = await to_thread.run_sync(get, port)
            assert (answer["release"], answer["port"]) == (name, str(port))


async def test_the_release_command_runs_once_before_the_first_instance(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """In the release's folder and environment and limits of its own; its end is reported; asked again, it does not."""
    marks = tmp_path / "marks"
    spec = app(
        web(f"{LISTEN}:{port}", count=1),
        release=structs.replace(
            release_command(f"/bin/sh -c 'echo $ROLLWAY_RELEASE $PWD $(ulimit -n) >> {marks}; echo migrated'"),
            limits=Limits(open_files=77),
        ),
    )
    wish = Wish()
    one = source.add("v1", spec)
    async with running(tmp_path, source) as rig:
        await rig.host.assign(wish.for_(one, admin="r1"))
        report = await rig.until(lambda report: report.admin is not None and report.admin.state != "running")
        assert report.admin is not None
        assert (report.admin.state, report.admin.exit_code) == ("succeeded", 0)
        assert "migrated" in report.admin.output
        await rig.until_done(wish.for_(one, admin="r1"))
    release, folder, open_files = marks.read_text().split()
    assert (release, open_files) == ("v1", "77")
    assert Path(folder) == (tmp_path / "state" / "releases" / APP / "production" / "v1" / "tree").resolve()


async def test_a_release_command_that_the_agent_did_not_survive_is_never_run_again(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """After a restart in its middle it counts as failed, with the reason, and is not begun a second time."""
    begun, signal_fifo = tmp_path / "begun", tmp_path / "fifo"
    os.mkfifo(signal_fifo)
    command = f"/bin/sh -c 'echo x >> {begun}; echo > {signal_fifo}; exec sleep 60'"
    spec = app(web(f"{LISTEN}:{port}", count=1), release=release_command(command))
    wish = Wish()
    async with running(tmp_path, source, drain=False) as rig:
        await rig.host.assign(wish.for_(source.add("v1", spec), admin="r1"))
        await to_thread.run_sync(signal_fifo.read_bytes)
    async with running(tmp_path, source) as rig:
        report = await rig.until(lambda report: report.admin is not None and report.admin.state == "failed")
        assert report.admin is not None
        assert "unknown whether it finished" in report.admin.output
        await rig.until(lambda report: [view.state for view in report.instances] == ["ready"])
    assert begun.read_text() == "x\n"
