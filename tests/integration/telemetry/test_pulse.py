"""The pulse beside a service manager that is slow."""

import itertools
import socket
from pathlib import Path

import anyio
import pytest

from agent.telemetry.pulse import BEAT_S, Pulse

DEADLINE_S = 20


def filled(manager: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        try:
            while True:
                sender.sendto(b"X_OTHER=1", str(manager))
        except BlockingIOError:
            return


@pytest.mark.anyio
async def test_a_service_manager_that_takes_nothing_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its queue is full the loop goes on as ever; once it reads again it hears the newest status."""
    beats, statuses = itertools.count(1), itertools.count(1)
    enough = anyio.Event()

    def lagged(_seconds: float) -> None:
        if next(beats) == 3:
            enough.set()

    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(str(tmp_path / "notify"))
        filled(tmp_path / "notify")
        async with anyio.create_task_group() as tasks:
            began = anyio.current_time()
            tasks.start_soon(Pulse(lagged, lambda: f"number {next(statuses)}").run)
            with anyio.fail_after(DEADLINE_S):
                await enough.wait()
                assert anyio.current_time() - began < 3 * BEAT_S + 0.9
                while b"STATUS=" not in manager.recv(4096):
                    await anyio.wait_readable(manager)
            tasks.cancel_scope.cancel()
