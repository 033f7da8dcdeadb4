"""What the demo plays on: a fleet, a repository of the sample app, users, and `rollway …` as a person would type it.

Rules: every process started here is ended by `close`, and nothing is written outside the stage's folder.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import anyio
import msgspec
from anyio.abc import ByteReceiveStream, Process, TaskGroup
from anyio.streams.buffered import BufferedByteReceiveStream
from msgspec import Struct

import agent
from agent.client.context import read_context
from agent.client.coordinator import Coordinator
from agent.errors import FailedError, NotFoundError, UnreachableError
from agent.linux.atomic import write_atomically
from agent.local.load import Tally
from agent.local.up import Ready
from agent.local.view import View

HOSTS: Final = 3
PORT: Final = 8080
VERSIONS: Final = {"v1.0.0": "1.0.0", "v2.0.0": "2.0.0", "v3.0.0": "3.0.0-broken"}
_PACKAGE: Final = Path(agent.__file__).parent.parent
_SHOP: Final = _PACKAGE / "config" / "examples" / "shop"
_LINE_MAX: Final = 1 << 16
_LOOK_S: Final = 0.05
_VIEW_S: Final = 0.25
_END_S: Final = 60
_COMMAND_MAX_S: Final = 120
_GIT: Final = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{who}_NAME": "demo" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "demo@localhost" for who in ("AUTHOR", "COMMITTER")},
}

T = TypeVar("T")


class Done(Struct, frozen=True):
    """A `rollway …` that has ended."""

    words: str
    code: int
    answer: bytes
    error: str
    seconds: float

    def worked(self) -> "Done":
        """Itself; FailedError when its exit code is not 0."""
        if self.code != 0:
            said = self.error.strip() or self.answer.decode(errors="replace").strip()
            raise FailedError(f"`{self.words}` ended with {self.code}: {said}", "See the events above.")
        return self


class Command:
    """A `rollway …` under way."""

    def __init__(self, words: Sequence[str], process: Process) -> None:
        self._words = " ".join(("rollway", *words))
        self._process = process
        self._began_s = anyio.current_time()
        self._done: Done | None = None
        self._ended = anyio.Event()

    async def run(self) -> None:
        answer, error = bytearray(), bytearray()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_collect, _opened(self._process.stdout), answer)
            tasks.start_soon(_collect, _opened(self._process.stderr), error)
        code = await self._process.wait()
        seconds = anyio.current_time() - self._began_s
        self._done = Done(self._words, code, bytes(answer), error.decode(errors="replace"), seconds)
        self._ended.set()

    async def end(self) -> Done:
        """Wait for its end; FailedError when there is none."""
        with anyio.move_on_after(_COMMAND_MAX_S):
            await self._ended.wait()
        if self._done is None:
            raise FailedError(f"`{self._words}` did not end within {_COMMAND_MAX_S} s", "See the events above.")
        return self._done


class Stage:
    """One demo's things. `open` and `close` are its life; `background` owns its tasks."""

    def __init__(self, folder: Path, view: View, background: TaskGroup) -> None:
        self.view = view
        self.folder = folder
        self.repository = folder / "shop"
        self.hosts: dict[str, str] = {}
        """Addresses by name."""
        self.up_pid = 0
        self.remarks: list[str] = []
        """What `up` said."""
        self._background = background
        # The sample app's build asks `python3` for pip, which not every host's own has.
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        self._environment = {**os.environ, "PYTHONPATH": str(_PACKAGE), "PATH": path}
        self._processes: list[Process] = []
        self._load: Process | None = None
        self._answers: BufferedByteReceiveStream | None = None
        self._speaking = anyio.Lock()
        self._showing = anyio.CancelScope()

    async def open(self) -> None:
        """Start the fleet."""
        words = ["agent", "up", "--hosts", str(HOSTS), "--dir", str(self.folder / "fleet"), "--json"]
        process = await self._start(words)
        self.up_pid = process.pid
        self._background.start_soon(self._hear, _opened(process.stderr))
        output = BufferedByteReceiveStream(_opened(process.stdout))
        try:
            ready = msgspec.json.decode(await output.receive_until(b"\n", _LINE_MAX), type=Ready)
        except (anyio.IncompleteRead, anyio.DelimiterNotFound, msgspec.DecodeError) as error:
            await process.wait()
            raise FailedError("the fleet did not start", " / ".join(self.remarks[-5:])) from error
        self._background.start_soon(_collect, output, None)
        self.hosts = {host.name: host.address for host in ready.hosts}
        self._environment["ROLLWAY_CONFIG"] = ready.config
        if self.view.is_live:
            self._background.start_soon(self._show)

    async def close(self) -> None:
        """End everything that was started, the newest first."""
        self._showing.cancel()
        for process in reversed(self._processes):
            if process.returncode is None:
                process.terminate()
                with anyio.move_on_after(_END_S):
                    await process.wait()
            await process.aclose()

    async def make_repository(self) -> None:
        """The sample app as a repository of its own, with a tag for each version."""
        if not _SHOP.is_dir():
            raise NotFoundError(f"the sample app is not in {_SHOP}", "Run the demo from a checkout of Rollway.")
        shutil.copytree(_SHOP, self.repository, ignore=shutil.ignore_patterns("lib", "__pycache__"))
        await self._git("init", "--quiet", "--initial-branch=main")
        for tag, version in VERSIONS.items():
            write_atomically(self.repository / "VERSION", f"{version}\n".encode(), 0o644)
            await self._git("add", "--all")
            await self._git("commit", "--quiet", "--allow-empty", "--message", f"Version {version}")
            await self._git("tag", tag)

    async def begin(self, *words: str) -> Command:
        """Start `rollway …`."""
        command = Command(words, await self._start(["agent", *words, "--json"]))
        self._background.start_soon(command.run)
        return command

    async def rollway(self, *words: str) -> Done:
        """Run `rollway …` to its end, whatever that is."""
        return await (await self.begin(*words)).end()

    async def start_load(self, expected: str) -> None:
        """Let users come, who expect this version."""
        load = await self._start(
            ["agent.local.load", str(PORT), *self.hosts.values(), "--orders"], stdin=subprocess.PIPE
        )
        self._background.start_soon(self._hear, _opened(load.stderr))
        self._answers = BufferedByteReceiveStream(_opened(load.stdout))
        self._load = load
        await self.tell_load("expect", expected)

    async def tell_load(self, *words: str) -> Tally:
        """Say a line to the load; gives what it has counted, which is nothing before it was started."""
        if self._load is None or self._load.stdin is None or self._answers is None:
            return Tally()
        async with self._speaking:
            await self._load.stdin.send((" ".join(words) + "\n").encode())
            return msgspec.json.decode(await self._answers.receive_until(b"\n", _LINE_MAX), type=Tally)

    async def stop_load(self) -> Tally:
        """Let all users go; gives the last tally. The view stays as it is then."""
        self._showing.cancel()
        tally = await self.tell_load("end")
        load, self._load = self._load, None
        if load is not None:
            await load.wait()
        return tally

    def client(self) -> Coordinator:
        file = Path(self._environment["ROLLWAY_CONFIG"])
        return Coordinator(read_context(file.read_text(), str(file)))

    async def until(self, found: Callable[[], Awaitable[T | None]], seconds: float, what: str) -> T:
        """What `found` gives once it gives something; FailedError when that takes longer than `seconds`."""
        with anyio.move_on_after(seconds):
            while True:
                with suppress(UnreachableError):
                    if (value := await found()) is not None:
                        return value
                await anyio.sleep(_LOOK_S)
        raise FailedError(f"{what} did not happen within {seconds:g} s", "See the events above.")

    async def _start(self, words: Sequence[str], *, stdin: int = subprocess.DEVNULL) -> Process:
        process = await anyio.open_process(
            [sys.executable, "-P", "-m", *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self._environment,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    async def _git(self, *words: str) -> None:
        await anyio.run_process(["git", *words], cwd=self.repository, env={**os.environ, **_GIT})

    async def _hear(self, stream: ByteReceiveStream) -> None:
        """Show what a process says on stderr as events."""
        lines = BufferedByteReceiveStream(stream)
        with suppress(anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.ClosedResourceError):
            while True:
                line = (await lines.receive_until(b"\n", _LINE_MAX)).decode(errors="replace")
                self.remarks.append(line)
                self.view.event(line)

    async def _show(self) -> None:
        """Keep the live view up to date."""
        async with self.client() as coordinator:
            with self._showing:
                while True:
                    try:
                        self.view.fleet(await coordinator.ps(), await self.tell_load("tally"))
                    except UnreachableError:
                        self.view.away(await self.tell_load("tally"))
                    await anyio.sleep(_VIEW_S)


def _opened(stream: ByteReceiveStream | None) -> ByteReceiveStream:
    if stream is None:
        raise FailedError("a process has no pipe")
    return stream


async def _collect(stream: ByteReceiveStream, into: bytearray | None) -> None:
    """Read to the end; keep it, or not."""
    with suppress(anyio.EndOfStream, anyio.ClosedResourceError):
        while True:
            chunk = await stream.receive()
            if into is not None:
                into += chunk
