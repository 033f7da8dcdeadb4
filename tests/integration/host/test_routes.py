"""What becomes of listening sockets whose address has left the host."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import pytest

from agent.host.adopt import name_of
from agent.host.assignments import AppKey
from agent.host.routes import Routes
from agent.model.address import Address
from agent.model.ids import AppName, EnvironmentName, ProcessName
from tests.integration.supervisor.keeper import Keeper

pytestmark = pytest.mark.anyio
KEY: Final = AppKey(AppName("shop"), EnvironmentName("test"))
IP_FREEBIND: Final = 15
ELSEWHERE: Final = "192.0.2.7"


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    """A service manager."""
    keeper = Keeper(tmp_path)
    yield keeper
    keeper.close()


async def test_sockets_of_an_address_that_has_left_keep_no_agent_from_starting(keeper: Keeper) -> None:
    """An address that moved to another host takes its sockets along: they are given up, in the store as well."""
    with socket.socket() as listener:
        listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((ELSEWHERE, 0))
        listener.listen()
        address = Address(ELSEWHERE, listener.getsockname()[1])
        keeper.store.put(name_of(KEY, ProcessName("web"), address, 1, 0), listener.fileno())
        assert keeper.names()
    async with anyio.create_task_group() as tasks:
        routes = Routes(KEY, tasks, keeper.store)
        await routes.adopt(keeper.inherited(), [], None)
    assert not keeper.names()
