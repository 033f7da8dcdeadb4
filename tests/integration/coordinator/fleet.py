"""A real coordinator process on loopback with its CA, and agents that speak through the real dialer and run nothing."""

import os
import random
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import msgspec
from msgspec import Struct
from pyrage import x25519  # type: ignore[import-untyped]  # it has no stubs

from agent.artifacts import sign
from agent.artifacts.manifest import write_manifest
from agent.client.answers import RolloutShown
from agent.client.context import Context
from agent.client.coordinator import Coordinator
from agent.coordinator import ca
from agent.link.dial import Dialer, LeaseSide
from agent.link.tls import cli_context, client_context
from agent.model.assignment import AppReport, Assignment, InstanceReport, PreparedReport
from agent.model.build import Archive, Build
from agent.model.ids import AppName, Digest, EnvironmentName, HostName, ProcessName, ReleaseName
from agent.model.process import AppSpec, ProcessType
from agent.model.release import Order, OrderKind, Release
from agent.model.roles import CoordinatorSettings, TlsFiles
from agent.wire.canonical import digest_of
from agent.wire.messages import PROTOCOL, Hello, TailLines, TailLogs

DEADLINE_S = 20.0
APP, LOCAL = AppName("shop"), EnvironmentName("local")
ADMIN, VIEWER = "an-admins-token", "a-viewers-token"
ARCHIVE = b"the bytes of an archive"
BUILD = digest_of(ARCHIVE)
SPEC = AppSpec(app=APP, processes=(ProcessType(name=ProcessName("web"), command="serve", count=1),))
_RUN = """
import itertools, os, signal, sys
import msgspec
from agent.coordinator import main, rollouts
from agent.model.roles import CoordinatorSettings

commit, commits = rollouts.Rollouts._commit, itertools.count(1)

async def dying(self, decision):
    number = str(next(commits))
    for moment in ("before", "after"):
        if sys.argv[2:] == [moment, number]:
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == "before":
            await commit(self, decision)

rollouts.Rollouts._commit = dying
main.run(msgspec.json.decode(sys.argv[1], type=CoordinatorSettings))
"""
"""Runs the coordinator as it is; asked to, it dies by SIGKILL just before or just after a commit of its rollouts."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Fleet:
    """One coordinator's folder; `start` and `kill` as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca"
        ca.make_ca(self.ca)
        self.url = f"https://127.0.0.1:{free_port()}"
        self.settings = CoordinatorSettings(
            listen=(self.url.removeprefix("https://"),),
            state_dir=str(folder / "state"),
            database=f"sqlite:///{folder}/state/coordinator.db",
            store=f"file://{folder}/store",
            tls=self.certificate("coordinator", "coordinator"),
        )
        (folder / "state").mkdir(exist_ok=True)
        (folder / "state" / "bootstrap_token").write_text(ADMIN)
        self._process: subprocess.Popen[bytes] | None = None

    def certificate(self, name: str, kind: ca.Kind) -> TlsFiles:
        certificate, key = ca.issue(self.ca, name, ("127.0.0.1",), kind)
        files = TlsFiles(
            ca=str(self.ca / "ca.pem"),
            certificate=str(self.folder / f"{name}.pem"),
            key=str(self.folder / f"{name}.key"),
        )
        Path(files.certificate).write_bytes(certificate)
        Path(files.key).write_bytes(key)
        return files

    async def start(self, *dies: str) -> None:
        """The coordinator, up to where it says that it is ready. It `dies` ("before" or "after", its n-th commit)."""
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ready.bind("")
        ready.setblocking(False)  # noqa: FBT003 - the standard library's own order
        name = ready.getsockname().decode()[1:]
        arguments = [sys.executable, "-c", _RUN, msgspec.json.encode(self.settings).decode(), *dies]
        environ = {**os.environ, "NOTIFY_SOCKET": f"@{name}"}
        self._spawn(arguments, environ)
        with ready, anyio.fail_after(DEADLINE_S):
            await anyio.wait_readable(ready)
            assert b"READY=1" in ready.recv(4096)

    def _spawn(self, arguments: list[str], environ: dict[str, str]) -> None:
        with (self.folder / "coordinator.log").open("ab") as log:
            self._process = subprocess.Popen(arguments, env=environ, stdout=log, stderr=log)

    async def kill(self, number: int = signal.SIGKILL) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        with anyio.fail_after(DEADLINE_S):
            code = await anyio.to_thread.run_sync(self._process.wait)
        self._process = None
        return code

    async def died(self) -> None:
        assert self._process is not None
        with anyio.fail_after(DEADLINE_S):
            assert await anyio.to_thread.run_sync(self._process.wait) == -signal.SIGKILL

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def log(self) -> str:
        return (self.folder / "coordinator.log").read_text()

    def client(self, token: str = ADMIN) -> Coordinator:
        return Coordinator(Context(coordinator=self.url, token=token, ca=str(self.ca / "ca.pem")))

    @asynccontextmanager
    async def http(self, token: str = ADMIN) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(ssl=cli_context(str(self.ca / "ca.pem")))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with aiohttp.ClientSession(self.url, connector=connector, headers=headers) as session:
            yield session

    def agent_tls(self, name: str) -> ssl.SSLContext:
        return client_context(self.certificate(name, "agent"))


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(folder)
    try:
        await fleet.start()
        yield fleet
    finally:
        fleet.close()


class Eager(random.Random):
    """Draws short pauses, so that tests wait for events and not for backoff."""

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) / 50


class FakeAgent:
    """Takes assignments and says at once that they are so: done, or failed for a release whose name says `bad`.

    Asked for logs it gives its `records`, or nothing ever when it is `silent`.
    """

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        environments: tuple[str, ...] = ("local",),
        labels: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        *,
        leases: LeaseSide | None = None,
        on_run: Callable[[str, str], None] | None = None,
    ) -> None:
        self.name, self.held = HostName(name), dict[tuple[str, str], Assignment]()
        self.assigned: list[Assignment] = []
        self.answers = True
        self.silent = False
        self.changed = anyio.Event()
        self.identity = x25519.Identity.generate()
        self.records: list[tuple[str, ...]] = []
        self.tailing = anyio.Event()
        self.tail_ended = anyio.Event()
        hello = Hello(
            protocol=PROTOCOL,
            host=self.name,
            boot_id="boot",
            version="0",
            age_recipient=str(self.identity.to_public()),
            labels=labels or {},
            environments=tuple(map(EnvironmentName, environments)),
            leases=leases is not None,
        )
        self.dialer = Dialer(
            coordinators=[fleet.url],
            tls=tls or fleet.agent_tls(name),
            hello=hello,
            rng=Eager(),
            on_assign=self._assigned,
            tail=self._tail,
            leases=leases,
            on_run=on_run,
            on_connected=lambda _: self._tell(),
        )

    async def _assigned(self, assignment: Assignment) -> None:
        self.assigned.append(assignment)
        self.held[assignment.app, assignment.environment] = assignment
        if self.answers:
            self.report()
        self._tell()

    def report(self) -> None:
        self.dialer.report(lambda: tuple(_as_wished(assignment) for assignment in self.held.values()))

    async def _tail(self, ask: TailLogs) -> AsyncGenerator[TailLines, None]:
        self.tailing.set()
        try:
            if self.silent:
                await anyio.sleep_forever()
            for lines in self.records:
                yield TailLines(tail=ask.tail, lines=lines)
            if ask.follow:
                await anyio.sleep_forever()
        finally:
            self.tail_ended.set()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def until(self, met: Callable[["FakeAgent"], bool]) -> None:
        with anyio.fail_after(DEADLINE_S):
            while not met(self):
                await self.changed.wait()

    @property
    def runs(self) -> str | None:
        assignment = self.held.get((APP, LOCAL))
        return assignment.release.name if assignment and assignment.release else None


def _as_wished(assignment: Assignment) -> AppReport:
    release, bad = assignment.release, "bad" in (assignment.release.name if assignment.release else "")
    wanted = [*assignment.prepare, *([release] if release else [])]
    instance = InstanceReport(
        process=ProcessName("web"), slot=0, release=release.name, state="ready", pid=7, since_ms=0, restarts=0
    ) if release else None  # fmt: skip
    return AppReport(
        app=assignment.app,
        environment=assignment.environment,
        generation=assignment.generation,
        release=release.name if release else None,
        state="failed" if bad else "done",
        reason="it is bad" if bad else "",
        prepared=tuple(PreparedReport(release=ref) for ref in wanted),
        instances=(instance,) if instance and not bad else (),
    )


def build(spec: AppSpec = SPEC, data: bytes = ARCHIVE) -> Build:
    digest = digest_of(data)
    archive = Archive(
        digest=digest, size_bytes=len(data), tar_digest=digest, tar_bytes=10_240, zstd_version="1.5.7", zstd_level=10
    )
    return Build(
        app=APP, version="1.0.0", commit="c" * 40, committed_at_s=1_700_000_000, archive=archive, files=(), spec=spec
    )


async def upload(fleet: Fleet, client: Coordinator, spec: AppSpec = SPEC, data: bytes = ARCHIVE) -> None:
    path, made = fleet.folder / "archive", build(spec, data)
    path.write_bytes(data)
    await client.upload_archive(APP, made.id, path)
    await client.upload_manifest(APP, made.id, write_manifest(made))


def release(name: str, spec: AppSpec = SPEC) -> bytes:
    return sign.seal(
        Release(
            app=APP,
            environment=LOCAL,
            name=ReleaseName(name),
            build=BUILD,
            build_manifest=digest_of(write_manifest(build(spec))),
            version="1.0.0",
            commit="c" * 40,
            created_at_s=1_700_000_000,
            config_version=0,
            config={},
            spec=spec,
        )
    )


class Asked(Struct):
    order: Order
    envelope: bytes


async def order(client: Coordinator, name: str, kind: OrderKind = "swap", spec: AppSpec = SPEC) -> Asked:
    """What an operator's machine signs: after what runs now, with the next number."""
    state = await client.state(APP, LOCAL)
    wanted = Order(
        kind=kind,
        app=APP,
        environment=LOCAL,
        release=ReleaseName(name),
        release_digest=Digest(sign.payload_digest(release(name, spec))),
        replaces=state.runs.name if state.runs else None,
        replaces_digest=state.runs.digest if state.runs else None,
        sequence=state.sequence + 1,
    )
    return Asked(wanted, sign.seal(wanted))


async def swap(client: Coordinator, name: str, kind: OrderKind = "swap") -> RolloutShown:
    """A rollout, to its end."""
    if name not in [entry.release for entry in await client.releases(APP, LOCAL)]:
        await client.create_release(APP, LOCAL, release(name))
    asked = await order(client, name, kind)
    return await finished(client, await client.start_rollout(APP, LOCAL, asked.envelope, None))


async def finished(client: Coordinator, rollout: RolloutShown) -> RolloutShown:
    shown = rollout
    with anyio.fail_after(DEADLINE_S):
        async for seen in client.watch(rollout.id):
            shown = seen or shown
    return shown
