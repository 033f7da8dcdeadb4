"""What becomes of listening sockets whose address has left the host, and of ports that instances bind themselves."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import pytest
from msgspec import structs

from agent.errors import RefusedError
from agent.host.adopt import name_of
from agent.host.assignments import AppKey
from agent.host.ownports import OwnPorts
from agent.host.routes import Routes
from agent.linux import clock
from agent.linux.fdstore import Inherited
from agent.model.address import Address
from agent.model.ids import AppName, EnvironmentName, ProcessName
from agent.model.process import ProcessType
from agent.supervisor.records import Record, Records
from tests.integration.host.source import free_port
from tests.integration.supervisor.conftest import House, emptied, script
from tests.integration.supervisor.keeper import Keeper
from tests.integration.supervisor.test_adopt import an_agent

pytestmark = pytest.mark.anyio
KEY: Final = AppKey(AppName("shop"), EnvironmentName("test"))
OTHER: Final = AppKey(AppName("blog"), EnvironmentName("test"))
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
        routes = Routes(KEY, tasks, keeper.store, OwnPorts())
        await routes.adopt(keeper.inherited(), [], None)
    assert not keeper.names()


async def test_a_port_is_of_the_app_that_binds_it_while_nobody_listens(keeper: Keeper) -> None:
    """Between two of its starts no other app and no other type takes it, itself or by sockets; its next slot does."""
    port = free_port()
    own = ProcessType(name=ProcessName("web"), command="serve", bind="port", swap="stop-first")
    by_sockets = structs.replace(own, name=ProcessName("api"), bind="fd", swap="start-first")
    ports, everywhere, here = OwnPorts(), (Address("::", port),), (Address("127.0.0.1", port),)
    async with anyio.create_task_group() as tasks:
        ours, others = (Routes(key, tasks, keeper.store, ports) for key in (KEY, OTHER))
        assert (await ours.slot(own, 1, here)).port == port
        said = f"web of {KEY.app} {KEY.environment} binds 127.0.0.1:{port} itself"
        for routes, process in ((others, own), (others, by_sockets), (ours, by_sockets)):
            with pytest.raises(RefusedError, match=said):
                await routes.slot(process, 1, everywhere)
        assert (await ours.slot(own, 2, here)).port == port
        for slot in (1, 2):
            ours.forget(own.name, slot)
        assert (await others.slot(own, 1, everywhere)).port == port


async def test_the_next_agent_knows_whose_a_port_is(keeper: Keeper, tmp_path: Path) -> None:
    """What binds its own port is taken up with it, before it listens, or listens again."""
    port, house = free_port(), House(tmp_path, store=keeper.store)
    own = structs.replace(script("exec sleep 600"), bind="port", swap="stop-first")
    async with an_agent(house):
        house.launch(own, addresses=(f"127.0.0.1:{port}",), port=port)
        await house.state("ready")
    left = Records(tmp_path / "run" / "records").left(clock.boot_id())
    ports, records = OwnPorts(), [record for record in left if isinstance(record, Record)]
    async with an_agent(house, keeper.inherited()), anyio.create_task_group() as tasks:
        await Routes(KEY, tasks, keeper.store, ports).adopt(Inherited({}), records, None)
        try:
            with pytest.raises(RefusedError, match="worker of shop test binds"):
                await Routes(OTHER, tasks, keeper.store, ports).slot(own, 1, (Address("127.0.0.1", port),))
        finally:
            await emptied(house)
