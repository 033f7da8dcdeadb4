"""A host with nothing but a supervisor: real processes, and one place to wait for what becomes of them."""

import asyncio
import contextlib
import os
import select
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.lowlevel
import msgspec
import pytest
from msgspec import structs

from agent.decisions.process.state import Level
from agent.decisions.swap.state import InstanceView
from agent.linux import cgroup, procfs, sockets
from agent.linux.fdstore import FdStore, Inherited
from agent.linux.journal import Journal
from agent.model.address import Address
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, Digest, EnvironmentName, ProcessName, ReleaseName
from agent.model.process import CrashLoop, ProcessType, RestartPolicy, StopPolicy
from agent.supervisor.launchable import AdminCommand, InstanceKey, Launchable, Listener, Target
from agent.supervisor.supervisor import Supervisor
from tests.integration.supervisor.keeper import Keeper

APPS = Path(__file__).parent / "apps"
DEADLINE_S = 20
QUICK = RestartPolicy(base_delay_ms=50, max_delay_ms=200, crash_loop=CrashLoop(restarts=3))
SOON = StopPolicy(linger_ms=0, grace_ms=5_000)
V1 = ReleaseRef(name=ReleaseName("v1"), digest=Digest("sha256:" + "1" * 64))
SHOP, TEST = AppName("shop"), EnvironmentName("test")
Record = dict[str, object]


def app(name: str, *words: object) -> str:
    """The command of one of the programs beside this file."""
    return " ".join([sys.executable, "-u", str(APPS / name), *map(str, words)])


@dataclass
class House:
    """One supervisor, what it said, and what its instances wrote."""

    folder: Path
    cgroup_root: Path | None = None
    drops_logs: bool = False
    launches: int | None = None
    has_room: Callable[[], bool] = lambda: True
    supervisor: Supervisor = field(init=False)
    records: list[Record] = field(default_factory=list)
    told: list[tuple[str, dict[str, str | int]]] = field(default_factory=list)
    offered: dict[Journal, None] = field(default_factory=dict)
    for_room: list[Callable[[], None]] = field(default_factory=list)
    stalled: bool = False
    store: FdStore = field(default_factory=lambda: FdStore(None))
    changed: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        self.supervisor = self.another()

    def another(self, inherited: Inherited | None = None) -> Supervisor:
        return Supervisor(
            run_dir=self.folder / "run",
            outlet=self,
            store=self.store,
            inherited=inherited,
            drops_logs=self.drops_logs,
            on_change=lambda _app, _environment: self._change(),
            on_event=self._tell,
            jitter=lambda: 0.0,
            cgroup_root=self.cgroup_root,
            launches=self.launches,
            has_room=self.has_room,
        )

    def _change(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    def _tell(self, key: InstanceKey, text: str, fields: Mapping[str, str | int], level: Level) -> None:
        self.told.append((text, dict(fields)))
        self._change()

    def offer(self, journal: Journal) -> None:
        """Take what is offered, unless nobody reads just now."""
        self.offered[journal] = None
        if not self.stalled:
            self.take()

    def take(self) -> None:
        for journal in self.offered:
            records = journal.next_unsent(journal.unsent)
            journal.skip(len(records))
            self.records += [msgspec.json.decode(line) for line in records.splitlines()]
        self.offered.clear()
        for call in self.for_room:
            asyncio.get_running_loop().call_soon(call)
        self.for_room.clear()
        self._change()

    def when_room(self, journal: Journal, call: Callable[[], None]) -> None:
        self.for_room.append(call)

    async def room(self, journal: Journal) -> None:
        while journal.is_full:
            await self.changed.wait()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for the change after which it holds."""
        with anyio.fail_after(DEADLINE_S):
            while not holds():
                await self.changed.wait()

    def views(self) -> tuple[InstanceView, ...]:
        return self.supervisor.views(SHOP, TEST)

    def view(self) -> InstanceView:
        (view,) = self.views()
        return view

    async def state(self, *states: str) -> InstanceView:
        """Wait until the one instance is in one of these states."""
        await self.until(lambda: self.view().state in states)
        return self.view()

    def messages(self, stream: str = "stdout") -> list[object]:
        return [record.get("message") for record in self.records if record["stream"] == stream]

    def texts(self) -> list[str]:
        return [text for text, _ in self.told]

    async def exit_of(self, pid: int | None) -> dict[str, str | int]:
        """Wait for what is told of the end of a process."""

        def exits() -> list[dict[str, str | int]]:
            return [fields for text, fields in self.told if text == "exited" and fields["pid"] == pid]

        await self.until(lambda: bool(exits()))
        return exits()[0]

    def launch(self, process: ProcessType, slot: int = 1, **more: object) -> InstanceKey:
        key = InstanceKey(SHOP, TEST, process.name, slot)
        given = {"key": key, "release": V1, "type": process, "cwd": str(self.folder), "config": {}}
        self.supervisor.launch(Launchable(**(given | more)))  # type: ignore[arg-type]  # the fields are the tests' own words
        return key

    def admin(self, command: str, *, timeout_ms: int = 10_000, shell: bool = True, **more: object) -> AdminCommand:
        return AdminCommand(
            app=SHOP, environment=TEST, release=ReleaseName("v1"), command=command, cwd=str(self.folder),
            config={"COLOUR": "green"}, timeout_ms=timeout_ms, shell=shell,
            **more,  # type: ignore[arg-type]  # the fields are the tests' own words
        )  # fmt: skip

    async def end(self, key: InstanceKey) -> InstanceView:
        self.supervisor.stop(key)
        return await self.state("stopped")


def worker(command: str, *, restart: RestartPolicy = QUICK, stop: StopPolicy = SOON) -> ProcessType:
    return ProcessType(name=ProcessName("worker"), command=command, restart=restart, stop=stop)


def script(command: str, *, restart: RestartPolicy = QUICK, stop: StopPolicy = SOON) -> ProcessType:
    return structs.replace(worker(command, restart=restart, stop=stop), shell=True)  # noqa: S604 - an app that asks for a shell


def lives(pid: int | None) -> bool:
    found = procfs.process(pid) if pid else None
    return found is not None and found.state not in "ZX"


class Notes:
    """A FIFO to which programs write words: the test waits for them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._read = b""

    def words(self) -> list[str]:
        """What is written by now."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._fd, 4096):
                self._read += chunk
        return self._read.decode().split()

    async def until(self, count: int) -> list[str]:
        """Wait for so many words in all."""
        with anyio.fail_after(DEADLINE_S):
            while len(self.words()) < count:
                await anyio.wait_readable(self._fd)
        return self.words()

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Notes]:
    made = Notes(tmp_path / "notes")
    yield made
    made.close()


async def ended(pid: int) -> None:
    """Wait for the end of a process, whether or not somebody reaps it."""
    with anyio.fail_after(DEADLINE_S), contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        await anyio.wait_readable(handle)
        os.close(handle)


async def reaped(pid: int) -> None:
    await ended(pid)
    with anyio.fail_after(DEADLINE_S):
        while procfs.process(pid) is not None:
            await anyio.lowlevel.checkpoint()


class Slot:
    """One listening socket on the loopback, as the owner of a slot would hand it over."""

    def __init__(self) -> None:
        self.socket = sockets.listen(Address("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.closed = 0
        self.given = {
            "listeners": (Listener(self.socket, self.queue_length, self.accept_and_close),),
            "target": Target("127.0.0.1", self.port, "127.77.0.1"),
            "port": self.port,
        }

    def queue_length(self) -> int:
        return sockets.queue_length(self.socket)

    def accept_and_close(self) -> int:
        accepted = 0
        # The app shares O_NONBLOCK with us and may have cleared it: ask before each accept.
        waits = select.poll()
        waits.register(self.socket, select.POLLIN)
        while waits.poll(0):
            self.socket.accept()[0].close()
            accepted += 1
        self.closed += accepted
        return accepted

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))


@pytest.fixture
def slot() -> Slot:
    return Slot()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    """A service manager, for a house whose agents come and go."""
    kept = Keeper(tmp_path)
    yield kept
    kept.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A supervisor that runs; whatever still lives at the end is drained."""
    house = House(tmp_path)
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        yield house
        await emptied(house)
        tasks.cancel_scope.cancel()


@pytest.fixture
async def in_leaves(tmp_path: Path) -> AsyncIterator[House]:
    """The same where each instance has a leaf of cgroup v2."""
    root = cgroup.detect()
    if root is None:
        pytest.skip("this machine has no writable cgroup v2")
    above = cgroup.create(root, f"rollway-test-{uuid4()}")
    house = House(tmp_path, cgroup_root=above)
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        yield house
        await emptied(house)
        tasks.cancel_scope.cancel()
    assert cgroup.remove(above)


async def emptied(house: House) -> None:
    house.stalled = False
    house.take()
    for view in house.views():
        house.supervisor.stop(InstanceKey(SHOP, TEST, view.process, view.slot), 0)
    await house.until(lambda: all(view.state == "stopped" for view in house.views()))
