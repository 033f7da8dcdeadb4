"""A singleton on one host: it runs under a lease, through swaps and agents, and ends in time when nobody answers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import pytest
from msgspec.structs import replace

from agent.linux import pidfd, procfs
from agent.model.assignment import AppReport
from agent.model.ids import HostName, ProcessName
from agent.model.lease import LeaseAnswer
from agent.model.process import AppSpec, ProcessType, StopPolicy
from agent.wire.messages import AnswerLeases, AskLeases
from tests.integration.host.rig import Rig, running
from tests.integration.host.source import APP, FolderSource, Wish

pytestmark = pytest.mark.anyio
CLOCK: Final = ProcessType(
    name=ProcessName("clock"), command="sleep 600", singleton=True, swap="stop-first",
    stop=StopPolicy(linger_ms=0, grace_ms=1_000),
)  # fmt: skip
SPEC: Final = AppSpec(app=APP, processes=(CLOCK,))
LEASE_MS: Final = 60_000
SHORT_MS: Final = 4_500
"""So long that an instance is asked to go after a second and a half without an answer."""


async def answer(rig: Rig, question: AskLeases, holder: str = "") -> None:
    answers = [LeaseAnswer(name=ask.name, granted=not holder, holder=HostName(holder)) for ask in question.asks]
    await rig.host.leases.answered(AnswerLeases(number=question.number, answers=tuple(answers)))


def clock(report: AppReport) -> tuple[str, str, int | None]:
    """State, release and pid of the one that runs; of none, why."""
    for one in report.instances:
        return (one.state, one.release if one.state != "stopped" else one.detail, one.pid)
    return ("", "", None)


async def under_lease(rig: Rig, release: str, lease_ms: int = LEASE_MS) -> int:
    """Answer what is asked, and wait until that release runs."""
    rig.host.leases.linked(lease_ms)
    await rig.until(lambda report: report.state == "swapping")
    await answer(rig, rig.host.leases.ask())
    report = await rig.until(lambda report: clock(report)[:2] == ("ready", release) and report.state == "done")
    pid = clock(report)[2]
    assert pid is not None
    return pid


async def gone(pid: int) -> None:
    if (started := procfs.start_time(pid)) is not None and (handle := pidfd.open_pidfd(pid, started)) is not None:
        with anyio.fail_after(20):
            await pidfd.exited(handle)
        os.close(handle)


async def test_a_host_without_the_lease_is_done_without_it(tmp_path: Path) -> None:
    """Where another host has it, a release is there all the same; when that one gives it up, it starts here."""
    source, wish = FolderSource(tmp_path), Wish()
    async with running(tmp_path, source) as rig:
        rig.host.leases.linked(LEASE_MS)
        await rig.host.assign(wish.for_(source.add("v1", SPEC)))
        await rig.until(lambda report: report.state == "swapping")
        await answer(rig, rig.host.leases.ask(), holder="h2")
        report = await rig.until(lambda report: report.state == "done")
        assert report.instances == ()
        await answer(rig, rig.host.leases.ask())
        await rig.until(lambda report: clock(report)[:2] == ("ready", "v1"))


async def test_a_swap_and_an_agent_that_dies_keep_it_on_its_host(tmp_path: Path) -> None:
    """Under one lease: first the old one stops, then the new one starts; the next agent leaves it as it is."""
    source, wish = FolderSource(tmp_path), Wish()
    async with running(tmp_path, source, drain=False) as rig:
        await rig.host.assign(wish.for_(source.add("v1", SPEC)))
        old = await under_lease(rig, "v1")
        await rig.host.assign(wish.for_(source.add("v2", SPEC)))
        new = await under_lease(rig, "v2")
        assert procfs.start_time(old) is None
    async with running(tmp_path, source) as rig:
        report = await rig.until(lambda report: clock(report)[0] == "ready" and report.state == "done")
        assert clock(report)[2] == new
        (ask,) = rig.host.leases.ask().asks
        assert 0 < ask.bound_ms <= LEASE_MS + 1_000, "the next agent says that it has the lease"


async def test_without_answers_it_ends_in_time_and_says_why(tmp_path: Path) -> None:
    """The agent itself ends it before its guard would; answered again it is started again."""
    source, wish = FolderSource(tmp_path), Wish()
    async with running(tmp_path, source) as rig:
        await rig.host.assign(wish.for_(source.add("v1", SPEC)))
        pid = await under_lease(rig, "v1", SHORT_MS)
        rig.host.leases.linked(None)
        report = await rig.until(lambda report: clock(report)[0] == "stopped")
        assert clock(report)[1] == "no lease: the coordinator is away"
        assert procfs.start_time(pid) is None
        rig.host.leases.linked(LEASE_MS)
        await answer(rig, rig.host.leases.ask())
        await rig.until(lambda report: clock(report)[0] == "ready")


async def test_one_that_was_given_to_another_host_ends_at_once(tmp_path: Path) -> None:
    """A person has moved what is kept: its old host hears of it, and ends its own."""
    source, wish = FolderSource(tmp_path), Wish()
    kept = replace(SPEC, processes=(replace(CLOCK, on_partition="keep"),))
    async with running(tmp_path, source) as rig:
        await rig.host.assign(wish.for_(source.add("v1", kept)))
        pid = await under_lease(rig, "v1")
        question = rig.host.leases.ask()
        assert [(ask.hold_ms, ask.bound_ms) for ask in question.asks] == [(-1, -1)]
        rig.host.leases.linked(None)
        rig.host.leases.linked(LEASE_MS)
        await answer(rig, rig.host.leases.ask(), holder="h2")
        await gone(pid)
        await rig.until(lambda report: report.instances == ())


async def test_a_part_of_a_total_is_kept_when_nobody_answers(tmp_path: Path) -> None:
    """As many run as a coordinator last said, through agents and without a link; a smaller part stops the rest."""
    source, wish = FolderSource(tmp_path), Wish()
    workers = AppSpec(app=APP, processes=(ProcessType(name=ProcessName("worker"), command="sleep 600", total=5),))

    def ready(count: int) -> Callable[[AppReport], bool]:
        return lambda report: [one.state for one in report.instances] == ["ready"] * count and report.state == "done"

    async with running(tmp_path, source, drain=False) as rig:
        rig.host.leases.linked(LEASE_MS)
        await rig.host.assign(wish.for_(source.add("v1", workers)))
        await rig.until(lambda report: report.state == "swapping")
        await share(rig, 3)
        before = {one.pid for one in (await rig.until(ready(3))).instances}
        rig.host.leases.linked(None)
    async with running(tmp_path, source) as rig:
        assert {one.pid for one in (await rig.until(ready(3))).instances} == before
        rig.host.leases.linked(LEASE_MS)
        await share(rig, 3)
        await rig.until(lambda report: bool(report.prepared))
        await share(rig, 1)
        await rig.until(ready(1))


async def share(rig: Rig, count: int) -> None:
    question = rig.host.leases.ask()
    (ask,) = question.asks
    assert ask.total == 5
    answers = (LeaseAnswer(name=ask.name, granted=True, share=count),)
    await rig.host.leases.answered(AnswerLeases(number=question.number, answers=answers))
