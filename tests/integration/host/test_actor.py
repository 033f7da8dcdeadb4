"""What the actor of one app refuses, holds back, hands on: at its edges, with everything real around it."""

import base64
import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pyrage  # type: ignore[import-untyped]  # it has no stubs
import pytest
from anyio import to_thread
from msgspec.structs import replace
from pyrage import x25519

from agent.decisions.swap.state import (
    AdminEnded,
    Assigned,
    Drain,
    Observed,
    Prepared,
    RestartAsked,
    SwapEvent,
    Tick,
    Undrain,
)
from agent.host import drained
from agent.host.inbox import Inbox
from agent.host.launch import addresses
from agent.host.tails import tail
from agent.model.address import Address
from agent.model.assignment import AdminReport, Assignment, ReleaseRef
from agent.model.ids import Digest, EnvironmentName, ProcessName, ReleaseName, RolloutId
from agent.model.process import AppSpec
from agent.model.release import ConfigValue
from agent.wire.messages import TailLogs
from tests.integration.host.rig import running
from tests.integration.host.source import APP, ENVIRONMENT, FolderSource, Wish, web
from tests.integration.host.test_swap import LISTEN, get, port, source

pytestmark = pytest.mark.anyio
__all__ = ["port", "source"]


def spec_on(port: int) -> AppSpec:
    return AppSpec(app=APP, processes=(web(f"{LISTEN}:{port}", count=1),))


async def test_an_instance_sees_its_secrets_in_plain_and_nobody_else_does(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """The instance gets the opened value as a variable; no file of the host's state and no log line holds it."""
    environment_key = x25519.Identity.generate()
    greeting = base64.b64encode(pyrage.encrypt(b"good-morning-42", [environment_key.to_public()])).decode()
    ref = source.add("v1", spec_on(port), config={"GREETING": ConfigValue(age=greeting)})
    async with running(tmp_path, source) as rig:
        host_key = x25519.Recipient.from_str(rig.key.recipient)
        wrapped = base64.b64encode(pyrage.encrypt(str(environment_key).encode(), [host_key])).decode()
        report = await rig.until_done(Wish().for_(ref, key=wrapped))
        assert report.state == "done", report.reason
        assert (await to_thread.run_sync(get, port))["greeting"] == "good-morning-42"
        state = [path for path in (tmp_path / "state").rglob("*") if path.is_file() and not path.is_symlink()]
        assert [path for path in state if b"good-morning-42" in path.read_bytes()] == []
        assert not any(b"good-morning-42" in records for records in rig.output)


def elsewhere(assignment: Assignment) -> Assignment:
    return replace(assignment, environment=EnvironmentName("staging"))


def hostile_name(assignment: Assignment) -> Assignment:
    return replace(assignment, app=APP.__class__("../../etc"))


def other_release(assignment: Assignment) -> Assignment:
    return replace(assignment, release=ReleaseRef(name=ReleaseName("v1"), digest=Digest("sha256:" + "0" * 64)))


def no_order(assignment: Assignment) -> Assignment:
    return replace(assignment, order="{}")


REFUSED: dict[str, Callable[[Assignment], Assignment]] = {
    "an environment that the host does not serve": elsewhere,
    "an app whose name is a path": hostile_name,
    "a release that the order does not name": other_release,
    "an order that is none": no_order,
}


@pytest.mark.parametrize("changed", REFUSED.values(), ids=REFUSED.keys())
async def test_an_assignment_that_may_not_be_is_refused_and_what_runs_goes_on(
    changed: Callable[[Assignment], Assignment],
    tmp_path: Path,
    source: FolderSource,
    port: int,
) -> None:
    """It changes nothing, leaves no file, and is told in an event; a rightful one after it is taken."""
    wish = Wish()
    one, two = source.add("v1", spec_on(port)), source.add("v2", spec_on(port))
    async with running(tmp_path, source) as rig:
        await rig.until_done(wish.for_(one))
        await rig.host.assign(changed(wish.for_(two)))
        await rig.until_event("assignment refused")
        await rig.until_done(wish.for_(two))
        assert [report.generation for report in rig.host.reports()] == [3]
    assert [path.name for path in (tmp_path / "state" / "apps").iterdir()] == ["shop.production.json"]


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Nothing can be written in `folder`, not even by root."""
    away = folder.rename(folder.with_name("away"))
    folder.write_text("")
    try:
        yield
    finally:
        folder.unlink()
        away.rename(folder)


async def test_while_states_cannot_be_stored_what_runs_goes_on_and_a_swap_waits(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """An assignment is not begun before it is stored; meanwhile a killed instance comes back and serves."""
    wish = Wish()
    one, two = source.add("v1", spec_on(port)), source.add("v2", spec_on(port))
    async with running(tmp_path, source) as rig:
        report = await rig.until_done(wish.for_(one))
        with unwritable(tmp_path / "state" / "apps"):
            await rig.host.assign(wish.for_(two))
            await rig.until_event("the state cannot be stored")
            pid = report.instances[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            again = await rig.until(
                lambda report: report.instances[0].pid != pid and report.instances[0].state == "ready"
            )
            assert again.generation == 1
            assert (await to_thread.run_sync(get, port))["release"] == "v1"
        report = await rig.until(lambda report: report.generation == 2 and report.state in ("done", "failed"))
        assert report.state == "done", report.reason


async def test_a_drain_holds_though_whoever_asked_for_it_is_gone(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """Ctrl-C right after the word: everything is drained, and an agent that is started then starts nothing."""
    async with running(tmp_path, source) as rig:
        await rig.until_done(Wish().for_(source.add("v1", AppSpec(app=APP, processes=(web(f"{LISTEN}:{port}"),)))))
        with anyio.CancelScope() as gone:
            gone.cancel()
            await rig.host.stay_drained()
        assert drained.is_there(tmp_path / "run")
        await rig.until(lambda report: report.aside == "drained" and not report.instances)


async def test_nothing_assigned_means_everything_stops_and_the_address_is_free(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """An assignment of no release drains the instances and closes the sockets: somebody else can listen there."""
    wish = Wish()
    async with running(tmp_path, source) as rig:
        await rig.until_done(wish.for_(source.add("v1", spec_on(port))))
        report = await rig.until_done(wish.for_(None))
        assert (report.state, report.instances) == ("done", ())
        with pytest.raises(OSError, match="refused"):
            await to_thread.run_sync(until_closed, port)


def until_closed(port: int) -> None:
    """Its sockets close one after another, each with a reset for whoever waits in its queue."""
    while True:
        with contextlib.suppress(ConnectionResetError):
            get(port)


async def test_a_log_reader_gets_the_last_lines_and_then_each_new_one(
    tmp_path: Path, source: FolderSource, port: int
) -> None:
    """A tail that follows begins with what was written before, and goes on with what a restarted instance writes."""
    async with running(tmp_path, source) as rig:
        report = await rig.until_done(Wish().for_(source.add("v1", spec_on(port))))
        ask = TailLogs(tail=1, app=APP, environment=ENVIRONMENT, lines=10)
        assert [len(lines.lines) async for lines in tail(rig.supervisor, ask)] == [1]
        found: list[dict[str, object]] = []
        async for lines in tail(rig.supervisor, replace(ask, follow=True)):
            found += [json.loads(line) for line in lines.lines]
            if len(found) == 1:
                pid = report.instances[0].pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            if len(found) == 2:
                break
    assert [line["message"] for line in found] == ["serving", "serving"]
    assert found[0]["pid"] != found[1]["pid"]


async def test_the_inbox_keeps_the_newest_of_each_level_and_every_answer() -> None:
    """Looks, assignments, drains replace each other, an older one never a newer; every answer and wish arrives."""
    inbox, wish = Inbox(), Wish()
    older, newer = wish.for_(None), wish.for_(None)
    answers: list[SwapEvent] = [
        Prepared(release=ReleaseRef(name=ReleaseName(name), digest=Digest("sha256:" + "0" * 64))) for name in "ab"
    ]
    answers.append(AdminEnded(report=AdminReport(rollout=RolloutId("r1"), state="failed")))
    given = [Observed(instances=()), Assigned(assignment=newer, order=None), *answers, Tick(), Drain()]
    given += [RestartAsked(), RestartAsked(process=ProcessName("web"))]
    inbox.put(Undrain())
    given.insert(0, given.pop(given.index(Drain())))  # it has the place of the one that it replaces
    for event in (*given, *given, Assigned(assignment=older, order=None)):
        inbox.put(event)
    assert [await inbox.take() for _ in given] == given
    with anyio.move_on_after(0.01) as waited:
        await inbox.take()
    assert waited.cancelled_caught


LISTENS: dict[str, tuple[tuple[str, ...], dict[ProcessName, tuple[str, ...]], str | None, list[str]]] = {
    "the app's own": (("127.0.0.1:80",), {}, None, ["127.0.0.1:80"]),
    "everywhere, on a host without an address": (("0.0.0.0:80",), {}, None, ["0.0.0.0:80"]),
    "everywhere, on a host that has one": (("0.0.0.0:80",), {}, "127.10.0.1", ["127.10.0.1:80"]),
    "the environment's over the app's": (
        ("0.0.0.0:80",),
        {ProcessName("web"): ("0.0.0.0:81", "[::1]:81")},
        "127.10.0.1",
        ["127.10.0.1:81", "[::1]:81"],
    ),
}


@pytest.mark.parametrize(("own", "over", "address", "expected"), LISTENS.values(), ids=LISTENS.keys())
def test_where_a_type_listens(
    own: tuple[str, ...], over: dict[ProcessName, tuple[str, ...]], address: str | None, expected: list[str]
) -> None:
    """`0.0.0.0` is the host's own address where it has one; what the environment says goes over what the app says."""
    process = replace(web("0.0.0.0:1"), listen=own)
    found: tuple[Address, ...] = addresses(process, replace(Wish().for_(None), listen=over), address)
    assert [str(one) for one in found] == expected
