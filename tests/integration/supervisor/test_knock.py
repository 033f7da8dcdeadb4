"""Whether a process takes connections from its slot: found without a task, once for all who ask it meanwhile."""

import asyncio
import select
import socket

import anyio
import pytest
from msgspec import structs

from agent.model.ids import AppName, EnvironmentName, ProcessName
from agent.model.process import HttpCheck, Probe, Probes, ProcessType, TcpCheck
from agent.supervisor.finding import Finding
from agent.supervisor.launchable import InstanceKey, Launchable, Target
from agent.supervisor.prober import Prober
from tests.integration.limits import no_more_fds
from tests.integration.supervisor.conftest import DEADLINE_S, V1, House, Slot, worker

pytestmark = pytest.mark.anyio
ACCEPTS = Probe(check=TcpCheck(), timeout_ms=5_000)


class Ear:
    """Who asks, and hears what was found."""

    def __init__(self, prober: Prober, probe: Probe = ACCEPTS) -> None:
        self.found: list[Finding | None] = []
        self._heard = anyio.Event()
        self.take_back = prober.knock(probe, self._hear)

    def _hear(self, found: Finding | None) -> None:
        self.found.append(found)
        self._heard.set()

    async def hears(self) -> Finding | None:
        with anyio.fail_after(DEADLINE_S):
            await self._heard.wait()
        return self.found[0]


def prober(slot: Slot) -> Prober:
    process = ProcessType(name=ProcessName("web"), command="unused")
    key = InstanceKey(AppName("shop"), EnvironmentName("test"), process.name, 1)
    listeners, target = slot.given["listeners"], slot.given["target"]
    assert isinstance(listeners, tuple)
    assert isinstance(target, Target)
    return Prober(
        Launchable(
            key=key, release=V1, type=process, cwd="/", config={}, listeners=listeners, port=slot.port, target=target
        )
    )


def is_over(ours: socket.socket) -> bool:
    """Whether the other end of an accepted connection is gone."""
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    return bool(poll.poll(DEADLINE_S * 1_000)) and ours.recv(1) == b""


async def test_who_asks_the_same_meanwhile_shares_one_connection(slot: Slot) -> None:
    """Readiness and liveness of a new process begin together: it gets one connection, and no task waits for it."""
    asks, tasks = prober(slot), len(asyncio.all_tasks())
    ears = [Ear(asks), Ear(asks)]
    assert len(asyncio.all_tasks()) == tasks
    assert slot.queue_length() == 1
    with slot.socket.accept()[0] as taken:
        assert [await ear.hears() for ear in ears] == [Finding(ok=True)] * 2
        assert is_over(taken)
    assert Ear(asks).take_back is not None, "what was answered is asked anew"
    assert slot.queue_length() == 1


async def test_who_is_slow_to_accept_is_waited_for_on_that_connection(slot: Slot) -> None:
    """It is looked at again and again, and the process sees no second one of this question."""
    ear = Ear(prober(slot))
    asyncio.get_running_loop().call_later(0.1, slot.accept_and_close)
    assert await ear.hears() == Finding(ok=True)
    assert slot.closed == 1


async def test_where_nobody_accepts_it_is_said_in_time(slot: Slot) -> None:
    """The connection is hung up, and counts as silence."""
    ear = Ear(prober(slot), Probe(check=TcpCheck(), timeout_ms=60))
    assert await ear.hears() == Finding(ok=False, detail="no answer within 60 ms", silent=True)
    with slot.socket.accept()[0] as late:
        assert is_over(late)


async def test_who_asks_no_more_leaves_the_question_to_the_other(slot: Slot) -> None:
    """It is told nothing; the last who leaves hangs up."""
    asks = prober(slot)
    first, second = Ear(asks), Ear(asks)
    assert first.take_back is not None
    first.take_back()
    with slot.socket.accept()[0]:
        assert await second.hears() == Finding(ok=True)
    assert not first.found
    third = Ear(asks)
    assert third.take_back is not None
    third.take_back()
    third.take_back()
    with slot.socket.accept()[0] as given_up:
        assert is_over(given_up)
    assert not third.found


async def test_what_takes_longer_is_left_to_a_task(slot: Slot) -> None:
    """HTTP, a port of its own, an address that refuses, and that we have no descriptor to ask with."""
    for check in (HttpCheck(path="/"), TcpCheck(port=slot.port)):
        assert Ear(prober(slot), Probe(check=check)).take_back is None
    with no_more_fds():
        assert Ear(prober(slot)).take_back is None
    slot.socket.close()
    assert Ear(prober(slot)).take_back is None


async def test_an_instance_with_two_probes_is_asked_once_as_it_starts(house: House, slot: Slot) -> None:
    """One connection tells both that somebody accepts; here that is not the process itself, so that it can be seen."""
    hourly = Probe(check=TcpCheck(), period_ms=3_600_000, timeout_ms=5_000)
    key = house.launch(
        structs.replace(worker("sleep 600"), probes=Probes(readiness=hourly, liveness=hourly)), **slot.given
    )
    with anyio.fail_after(DEADLINE_S):
        await anyio.wait_readable(slot.socket)
    assert house.view().state == "starting"
    assert slot.accept_and_close() == 1
    await house.state("ready")
    assert slot.queue_length() == 0
    await house.end(key)
