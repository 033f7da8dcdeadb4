"""What tests of drivers share: a real HAProxy, servers behind it, and users that count what they were answered."""

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import anyio

from agent.model.address import Address
from agent.model.balancer import Look, Wanted
from agent.model.ids import HostName
from agent.traffic.haproxy import Haproxy
from agent.traffic.runtime_api import ask
from agent.wire.haproxy import look_line, parse_look

NAMED = Path(__file__).parent / "apps" / "named.py"
BACKEND = "shop"
WITHIN_S = 15


class Server:
    """A process that answers its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen([sys.executable, str(NAMED), name], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = Address("127.0.0.1", int(self.process.stdout.readline()))

    def wanted(self, *, admitted: bool = True) -> Wanted:
        return Wanted(name=self.name, address=self.address, admitted=admitted)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def servers(*names: str) -> Iterator[list[Server]]:
    started = [Server(name) for name in names]
    try:
        yield started
    finally:
        for server in started:
            server.kill()


class Proxy:
    """HAProxy in master-worker mode, as its package's unit runs it; `file` is what its backend has by itself."""

    def __init__(self, folder: Path, *file: str, level: str = "admin") -> None:
        self.socket = str(folder / "admin.sock")
        self.port = _free_port()
        self._file = folder / "haproxy.cfg"
        lines = [
            "global", f"stats socket {self.socket} level {level} expose-fd listeners", "hard-stop-after 5s",
            "defaults", "mode http", "timeout connect 1s", "timeout client 20s", "timeout server 20s",
            "option redispatch 1", "retries 3",
            "frontend users", f"bind 127.0.0.1:{self.port}", f"default_backend {BACKEND}",
            f"backend {BACKEND}", "balance roundrobin", *file,
        ]  # fmt: skip
        self._file.write_text("\n".join(lines) + "\n")
        self.master = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        path = os.environ["PATH"] + ":/usr/sbin"
        return subprocess.Popen(
            ["haproxy", "-W", "-q", "-f", str(self._file)], env={"PATH": path}, stderr=subprocess.DEVNULL
        )

    async def look(self) -> Look:
        """What it says, once it says anything."""
        with anyio.fail_after(WITHIN_S):
            while True:
                answer = await ask(self.socket, look_line(BACKEND))
                look = parse_look(answer) if isinstance(answer, bytes) else answer
                if isinstance(look, Look):
                    return look
                await anyio.lowlevel.checkpoint()

    async def reload(self) -> None:
        """As `systemctl reload haproxy` does it: a new worker takes the listeners over."""
        before = (await self.look()).process
        self.master.send_signal(signal.SIGUSR2)
        with anyio.fail_after(WITHIN_S):
            while (await self.look()).process == before:
                await anyio.lowlevel.checkpoint()

    async def crash(self) -> None:
        """Kill it, all of it."""
        worker = (await self.look()).process
        for pid in (self.master.pid, worker):
            os.kill(pid, signal.SIGKILL)
        self.master.wait()

    def start_again(self) -> None:
        self.master = self._started()

    def end(self) -> None:
        self.master.terminate()
        self.master.wait(WITHIN_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def haproxy(folder: Path, *file: str, level: str = "admin") -> Iterator[Proxy]:
    proxy = Proxy(folder, *file, level=level)
    try:
        yield proxy
    finally:
        proxy.end()


class Driven:
    """A driver at work, and what became of its servers."""

    def __init__(self, proxy: Proxy, options: tuple[str, ...] = ("check", "inter", "500ms")) -> None:
        self._changed = anyio.Event()
        self.driver = Haproxy(HostName("h1"), [proxy.socket], BACKEND, options=options, on_change=self._change)

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(WITHIN_S):
            while not holds():
                await self._changed.wait()

    async def stands(self, server: str, *states: str) -> None:
        admitted = "admitted" in states
        await self.until(lambda: self.driver.standing(server, admitted=admitted).state in states)


@asynccontextmanager
async def driven(proxy: Proxy, options: tuple[str, ...] = ("check", "inter", "500ms")) -> AsyncIterator[Driven]:
    running = Driven(proxy, options)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.driver.run)
        yield running
        tasks.cancel_scope.cancel()


class Users:
    """What users of a proxy were answered: by which server, and what else."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []
        self._told = anyio.Event()

    def take(self, answer: str, status: int = 200) -> None:
        if status == 200:
            self.answered[answer] += 1
        else:
            self.failed.append(f"{status} {answer}")
        self._told.set()
        self._told = anyio.Event()

    async def more(self, requests: int) -> Counter[str]:
        """Who answered the next so many."""
        before = Counter(self.answered)
        with anyio.fail_after(WITHIN_S):
            while (self.answered - before).total() < requests:
                await self._told.wait()
        return self.answered - before


@asynccontextmanager
async def users(proxy: Proxy, path: str = "/", kept: int = 8, fresh: int = 8) -> AsyncIterator[Users]:
    """Some that keep their connection, some that make a new one for each request."""
    seen = Users()

    async def ask_on(*, force_close: bool) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=force_close, limit=1)) as session:
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{proxy.port}{path}") as answer:
                        seen.take((await answer.text()).split("\n")[0], answer.status)
                except aiohttp.ClientError as error:
                    seen.take(repr(error), 0)

    async with anyio.create_task_group() as tasks:
        for number in range(kept + fresh):
            tasks.start_soon(lambda fresh_one: ask_on(force_close=fresh_one), number >= kept)
        yield seen
        tasks.cancel_scope.cancel()
