"""HAProxy's agent-check and the agent: a real HAProxy asks, and does as it is answered."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from agent.traffic import agentcheck
from agent.traffic.agentcheck import Answer
from tests.integration.limits import no_more_fds
from tests.integration.traffic.balanced import WITHIN_S, haproxy, servers

pytestmark = pytest.mark.anyio


class Said:
    """What is answered, and what was asked."""

    def __init__(self) -> None:
        self.answer = Answer("ready")
        self.asked: list[tuple[str, str]] = []
        self.port = 0

    def __call__(self, app: str, environment: str) -> Answer:
        self.asked.append((app, environment))
        return self.answer


@asynccontextmanager
async def answering() -> AsyncIterator[Said]:
    said, listening = Said(), socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)  # noqa: FBT003 - the standard library's own word
    said.port = listening.getsockname()[1]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agentcheck.serve, listening, said)
        yield said
        tasks.cancel_scope.cancel()


async def test_haproxy_does_as_it_is_answered(tmp_path: Path) -> None:
    """Down takes a server out, drain sends it nobody new, ready brings it back."""
    async with answering() as said:
        with servers("web") as (only,):
            check = f'agent-check agent-port {said.port} agent-inter 100ms agent-send "shop production\\n"'
            with haproxy(tmp_path, f"server web {only.address} check inter 1s {check}") as proxy:

                async def until(holds: Callable[[bool, bool], bool]) -> None:
                    with anyio.fail_after(WITHIN_S):
                        while True:
                            (web,) = (await proxy.look()).servers
                            if holds(web.up, web.draining):
                                return

                await until(lambda up, draining: up and not draining and bool(said.asked))
                said.answer = Answer("drain")
                await until(lambda _up, draining: draining)
                said.answer = Answer("ready")
                await until(lambda up, draining: up and not draining)
                said.answer = Answer("down", "no instance of web is ready")
                await until(lambda up, _draining: not up)
                said.answer = Answer("ready")
                await until(lambda up, draining: up and not draining)
                assert set(said.asked) == {("shop", "production")}


def asked(port: int, question: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) as connected:
        connected.sendall(question)
        connected.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connected.recv(4096), b""))


QUESTIONS = {
    "an app and its environment": (b"shop production\n", b"up ready 100%\n"),
    "an app alone": (b"shop\n", b"down #not asked for APP ENVIRONMENT\n"),
    "nothing": (b"", b""),
    "half a line": (b"shop produ", b""),
    "bytes that are no words": (b"\xff\x00 \xfe\n", b"up ready 100%\n"),
    "a line without end": (b"x" * 5_000, b""),
}


async def test_whoever_asks_is_answered_in_one_line() -> None:
    """What is no question gets no answer, or `down` with why; the next one is answered all the same."""
    async with answering() as said:
        for question, answer in QUESTIONS.values():
            try:
                assert await to_thread.run_sync(asked, said.port, question) == answer
            except ConnectionResetError:
                assert not answer, "what was not read is reset"


async def test_silent_ones_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that ask nothing are closed; who asks is heard meanwhile or right after."""
    monkeypatch.setattr(agentcheck, "AT_ONCE_MAX", 4)
    monkeypatch.setattr(agentcheck, "WITHIN_S", 0.2)
    async with answering() as said:
        silent = [socket.create_connection(("127.0.0.1", said.port)) for _ in range(12)]
        assert await to_thread.run_sync(asked, said.port, b"shop production\n") == b"up ready 100%\n"
        for one in silent:
            one.close()


async def test_without_a_descriptor_it_answers_as_soon_as_there_is_one() -> None:
    """Connections that cannot be taken, or that were reset before they were, end nobody who answers."""
    async with answering() as said:
        with socket.create_connection(("127.0.0.1", said.port)) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with socket.socket() as patient:
            with no_more_fds():
                patient.connect(("127.0.0.1", said.port))
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
            patient.settimeout(WITHIN_S)
            patient.sendall(b"shop production\n")
            assert await to_thread.run_sync(patient.recv, 4096) == b"up ready 100%\n"
