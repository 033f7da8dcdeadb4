"""The agent killed after every kind of effect it has, and at random, under load: nobody notices, no line is lost."""

import itertools
import json
import os
import random
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import Final

import anyio
import pytest
from anyio import to_thread
from anyio.from_thread import start_blocking_portal

from agent.local import layout, net
from agent.local.children import Child
from tests.e2e.fleet import Fleet, wait_for
from tests.e2e.load import load
from tests.e2e.repositories import repository

APPS: Final = Path(__file__).parent / "apps"
PORT: Final = 9611
RANDOM_KILLS: Final = 100
SWAPS_MAX: Final = 40
MUST_BE_SURVIVED: Final = {
    *(
        "instance " + action
        for action in ("LaunchNow", "StartProbe", "ShowNotice", "Signal", "KillTree", "CloseProcess")
    ),
    *("swap " + action for action in ("Prepare", "Launch", "Route", "Stop", "Forget")),
    *(
        "store put",
        "Records.put",
        "Pipe.open",
        "Marks.open",
        "Ways.keep",
        "States.store",
        "Intake.take",
        "Journal.commit",
        "Journal.hand_over",
        "Passage.send",
        "Group._attach",
    ),
}
APP_FILE: Final = f"""
app = "steady"
[process.web]
command = "python3 plain.py"
count = 2
listen = ["0.0.0.0:{PORT}"]
[process.web.probe.readiness]
http = "/ready"
period = "200ms"
[process.counter]
command = "python3 -u counter.py {{starts}}"
"""


class Mortal(Fleet):
    """A coordinator and an agent, by the parts of `rollway up`; the agent dies as `apps/mortal.py` says."""

    def __init__(self, folder: Path, agent: Child) -> None:
        super().__init__(folder, hosts=1)
        self.agent = agent

    @property
    def points(self) -> list[str]:
        return (self.folder / "points").read_text().splitlines()

    def arm(self) -> None:
        (self.folder / "armed").touch()

    def disarm(self) -> None:
        (self.folder / "armed").unlink()
        wait_for("the agent is back", self.is_connected)

    def is_connected(self) -> bool:
        return '"connected":true' in self.rollway("status", "--json").stdout

    def records(self) -> list[dict[str, object]]:
        """Every line that the agents wrote so far, each a whole record; the last may be under way."""
        return [json.loads(line) for line in (self.folder / "agent.log").read_bytes().split(b"\n")[:-1]]


@asynccontextmanager
async def mortal(folder: Path) -> AsyncIterator[Mortal]:
    place, lock = layout.Layout(folder / "up"), net.lock_block(None, None)
    (host,) = layout.prepare(place, lock.block, 1)
    lifeline, our_end = os.pipe()
    said: list[str] = []
    (folder / "points").touch()
    os.environ["MORTAL"] = str(folder)
    coordinator = Child(
        "coordinator",
        ("coordinator", "run", "--config", str(place.coordinator_file)),
        folder,
        lifeline=lifeline,
        say=said.append,
    )
    agent = Child(
        host.name,
        ("agent", "run", "--config", str(place.agent_file(host.name))),
        folder,
        lifeline=lifeline,
        say=said.append,
        program=(sys.executable, str(APPS / "mortal.py")),
        delays_s=(0.01, 0.01),
    )
    one = Mortal(folder, agent)
    async with anyio.create_task_group() as tasks:
        for role in (coordinator, agent):
            tasks.start_soon(role.run)
            tasks.start_soon(into_file, role.output, folder / f"{'agent' if role is agent else role.name}.log")
            assert await role.is_ready(), said
        try:
            yield one
        finally:
            with anyio.CancelScope(shield=True):
                for role, number in ((agent, signal.SIGINT), (coordinator, signal.SIGTERM)):
                    role.stop(number)
                    await role.ended.wait()
    for fd in (lifeline, our_end):
        os.close(fd)
    lock.socket.close()


async def into_file(output: int, path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        while chunk := await to_thread.run_sync(os.read, output, 1 << 16):
            file.write(chunk)
    os.close(output)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    """One host that runs v1 of an app; v2 lies ready in the store."""
    folder = tmp_path_factory.mktemp("mortal")
    files = {name: (APPS / name).read_text() for name in ("plain.py", "counter.py")}
    files |= {"rollway.toml": APP_FILE.format(starts=folder / "starts"), "behaviour": "good"}
    source = repository(folder / "r", {version: {**files, "VERSION": version} for version in ("v1", "v2")})
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(mortal(folder)) as one:
        for version in ("v2", "v1"):
            one.rollway("build", str(source), "--ref", version)
            one.rollway(
                "release", "create", "steady", "local", "--ref", version, "--path", str(source), "--name", version
            )
        one.rollway("swap", "steady", "local", "v1")
        yield one


def swap(one: Mortal, number: int) -> None:
    """To the other release, and see it run."""
    release = ("v2", "v1")[number % 2]
    one.rollway("swap", "steady", "local", release)
    wait_for(f"{release} alone runs", lambda: one.releases("steady") == {release})


def check_lines(one: Mortal) -> None:
    """Of each process of the counter every line came once and in order; nobody was restarted, nothing was lost."""
    lines: dict[object, list[str]] = defaultdict(list)
    told: list[str] = []
    for record in one.records():
        if "event" in record:
            told.append(" ".join(f"{name}={record[name]}" for name in record.keys() - {"level", "app", "env"}))
        assert record.get("event") != "descriptors did not come back", "\n".join(told[-60:])
        if record.get("process") == "counter":
            lines[record["pid"]].append(str(record["message"]))
    # One that was launched without being on record is ended and launched again by the next agent, unheard.
    assert {int(pid) for pid in (one.folder / "starts").read_text().split()} == set(lines), "started and not read"
    for pid, said in lines.items():
        numbers = [int(line.split()[1]) for line in said]
        assert numbers == list(range(len(said))), f"{pid}: lost or doubled in {len(said)} lines"
    ended = [said for said in lines.values() if said[-1].startswith("end")]
    assert len(ended) == len(lines) - 1, "a counter was cut short, or never started"
    assert {row["restarts"] for row in one.rows("ps", "steady", "local")} == {0}


@pytest.mark.timeout(900)
def test_killed_after_every_effect(steady: Mortal) -> None:
    """Start, launch, probe, swap and drain, each cut after each effect: no request fails, nothing starts twice."""
    with load(PORT, [steady.address()], "v1", "v2", pause_ms=20) as users:
        steady.arm()
        for number in range(SWAPS_MAX):
            known = len(steady.points)
            swap(steady, number)
            if len(steady.points) == known and number % 2:
                break
        steady.disarm()
        seen = users.end()
    assert seen["failed"] == seen["cut"] == 0, seen["reasons"]
    check_lines(steady)
    died_after = {point.rpartition(" ")[0] for point in steady.points}
    assert died_after >= MUST_BE_SURVIVED


@pytest.mark.timeout(600)
def test_killed_at_random(steady: Mortal) -> None:
    """Kills at moments that nobody chose, in the middle of swaps: no request fails, no line is lost."""
    seed = random.randrange(1 << 32)  # noqa: S311 - to be told, not to be secret
    moments, done = random.Random(seed), Event()  # noqa: S311 - the same

    def swap_on() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            swap(steady, number)

    with (
        load(PORT, [steady.address()], "v1", "v2", pause_ms=20) as users,
        ThreadPoolExecutor(1) as swapping,
    ):
        swapped = swapping.submit(swap_on)
        for _ in range(RANDOM_KILLS):
            pid = steady.agent.pid
            done.wait(moments.uniform(0, 1.5))
            if pid is not None and pid == steady.agent.pid:
                os.kill(pid, signal.SIGKILL)
            if swapped.done():
                break
        done.set()
        swapped.result()
        seen = users.end()
    assert seen["failed"] == seen["cut"] == 0, f"seed {seed}: {seen['reasons']}"
    check_lines(steady)
