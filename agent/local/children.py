"""A child process of `up`: started, known to be ready by its own word, started again when it ends by itself.

Rules: `up` plays systemd's part. Each child has a notify socket of its own, in the abstract namespace, and a lifeline:
a pipe that ends with `up`, however that ends. It has a session of its own, so that Ctrl-C reaches `up` alone, which
then ends its children in order.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import Process

import agent
from agent.wire import sdnotify

_FIRST_DELAY_S: Final = 0.2
_LARGEST_DELAY_S: Final = 10.0
_HEALTHY_S: Final = 5.0
_PACKAGE: Final = Path(agent.__file__).parent.parent


class Child:
    """One role as a process. `run` owns it: leaving `run` leaves no process."""

    def __init__(
        self, name: str, words: Sequence[str], folder: Path, *, lifeline: int, output: int, say: Callable[[str], None]
    ) -> None:
        self.name = name
        self.ended = anyio.Event()
        """It ended for good: it was asked to, or it never became ready."""
        self.started = False
        self.ending = "has not begun"
        """How it last ended, in words."""
        self._words = words
        self._folder = folder
        self._lifeline = lifeline
        self._output = output
        self._say = say
        self._process: Process | None = None
        self._ready = anyio.Event()
        self._stopping = anyio.Event()

    async def run(self) -> None:
        """Keep the child running until `stop`; one that ends before it was ever ready is not started again."""
        self.started = True
        try:
            with _notify_socket(f"rollway/up/{os.getpid()}/{self.name}") as notices:
                await self._keep_running(notices)
        finally:
            self.ended.set()

    async def is_ready(self) -> bool:
        """Wait until it said so, or ended before that."""
        async with anyio.create_task_group() as tasks:
            for event in (self._ready, self.ended):
                tasks.start_soon(_cancel_at, event, tasks.cancel_scope)
        return self._ready.is_set()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, and start it no more."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _keep_running(self, notices: socket.socket) -> None:
        delay_s = _FIRST_DELAY_S
        while not self._stopping.is_set():
            began_s = anyio.current_time()
            self.ending = await self._run_once(notices)
            if self._stopping.is_set() or not self._ready.is_set():
                return
            if anyio.current_time() - began_s > _HEALTHY_S:
                delay_s = _FIRST_DELAY_S
            self._say(f"{self.name} {self.ending}; starts again in {delay_s:g} s")
            with anyio.move_on_after(delay_s):
                await self._stopping.wait()
            delay_s = min(2 * delay_s, _LARGEST_DELAY_S)

    async def _run_once(self, notices: socket.socket) -> str:
        """Run the process to its end; gives how it ended, in words."""
        async with await anyio.open_process(
            [sys.executable, "-P", "-m", "agent", *self._words],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=None,
            cwd=self._folder,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(("LISTEN_", "WATCHDOG_"))},
                "PYTHONPATH": str(_PACKAGE),
                "NOTIFY_SOCKET": f"@rollway/up/{os.getpid()}/{self.name}",
                "ROLLWAY_LIFELINE_FD": str(self._lifeline),
            },
            start_new_session=True,
            pass_fds=[self._lifeline],
        ) as process:
            self._process = process
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hear, notices)
                code = await process.wait()
                tasks.cancel_scope.cancel()
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    async def _hear(self, notices: socket.socket) -> None:
        while True:
            await anyio.wait_readable(notices)
            if sdnotify.parse(notices.recv(sdnotify.DATAGRAM_BYTES_MAX)).ready:
                self._ready.set()


async def _cancel_at(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _notify_socket(name: str) -> socket.socket:
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    notices.bind(f"\0{name}")
    return notices
