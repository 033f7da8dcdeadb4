"""`rollway demo`: from nothing to a fleet, swapped under load, with a bad release undone; and the proof of it.

Everything is done by `rollway …` in processes of their own, as a person would, and everything is gone afterwards, after
Ctrl-C too. Rules: what nobody can save, requests in the hands of a process at the moment of its SIGKILL, is counted
apart and shown; any other failed or wrong answer breaks the proof.
"""

import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec
import psutil
from msgspec import Struct

from agent.client.answers import BuildMade, RolloutShown
from agent.client.coordinator import Coordinator
from agent.errors import RolledBackError, RollwayError
from agent.linux.atomic import write_atomically
from agent.local.load import Tally
from agent.local.stage import PORT, VERSIONS, Done, Stage
from agent.local.view import Proof, View
from agent.wire.control import Row

QUIET_S: Final = 3.0
GONE_S: Final = 5.0
_STEP_S: Final = 60.0
_APP: Final = ("shop", "local")


class Story(Struct, kw_only=True):
    """What was measured on the way."""

    setup_s: float = 0
    swaps: dict[str, Done] = {}
    restarts: int = 0
    coordinator_restarts: int = 0
    agent_restarts: int = 0
    kept: tuple[dict[str, int | None], dict[str, int | None]] = ({}, {})
    """The processes of a host, by instance, before its agent was killed and after the next one was there."""
    releases: dict[str, list[str]] = {}
    """What all ready web instances ran after each step."""
    tally: Tally = msgspec.field(default_factory=Tally)
    orders: int = 0
    total_s: float = 0


class Result(Struct, frozen=True, kw_only=True):
    """What came out of it."""

    held: bool
    figures: dict[str, str]
    proofs: list[Proof]


def run(*, live: bool, beside: bool) -> Result | None:
    """Play the demo and show it, on stderr with `beside`; None when it was interrupted."""
    with tempfile.TemporaryDirectory(prefix="rollway-demo-") as folder:
        return anyio.run(_run, Path(folder), live, beside)


async def _run(folder: Path, live: bool, beside: bool) -> Result | None:  # noqa: FBT001 - anyio.run knows no keywords
    view = View(live=live, beside=beside)
    failure: RollwayError | None = None
    story: Story | None = None
    async with anyio.create_task_group() as background:
        stage = Stage(folder, view, background)
        with view.open():
            try:
                with anyio.CancelScope() as playing:
                    await background.start(_cancel_at_signal, playing)
                    story = await play(stage)
            except RollwayError as error:
                failure = error
            finally:
                view.event("ending the fleet: the apps drain first")
                await stage.close()
        background.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if story is None:
        return None
    figures, proofs = figures_of(story), proofs_of(story)
    view.end(figures, proofs)
    return Result(held=all(proof.held for proof in proofs), figures=dict(figures), proofs=proofs)


async def _cancel_at_signal(
    playing: anyio.CancelScope, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            playing.cancel()


async def play(stage: Stage) -> Story:
    """The whole story, in order."""
    story, say = Story(), stage.view.event
    began_s = anyio.current_time()
    say("starting a coordinator and three hosts on this machine")
    await stage.open()
    say(f"ready: {', '.join(f'{name} {address}' for name, address in stage.hosts.items())}")
    await prepare(stage)
    story.setup_s = anyio.current_time() - began_s
    async with stage.client() as coordinator:
        await first_deploy(stage, story)
        await swap_with_kills(stage, story, coordinator)
        await kill_an_agent(stage, story, coordinator)
        await refused_release(stage, story, coordinator)
        await rollback(stage, story, coordinator)
    story.tally = await stage.stop_load()
    story.orders = await count_orders(next(iter(stage.hosts.values())))
    story.coordinator_restarts = sum("coordinator ended by SIGKILL" in line for line in stage.remarks)
    story.agent_restarts = sum(" ended by SIGKILL" in line for line in stage.remarks) - story.coordinator_restarts
    story.total_s = anyio.current_time() - began_s - story.setup_s
    return story


async def prepare(stage: Stage) -> None:
    """Builds, config, releases."""
    say = stage.view.event
    await stage.make_repository()
    say(f"building {', '.join(VERSIONS)} of the sample app, each with its pinned dependencies")
    builds = [await stage.begin("build", str(stage.repository), "--ref", tag) for tag in VERSIONS]
    for build in builds:
        made = msgspec.json.decode((await build.end()).worked().answer, type=BuildMade)
        say(f"build {made.version}: {made.id[:19]}, commit {made.commit[:7]}")
    settings = stage.folder / "local.toml"
    write_atomically(settings, b'[rolling]\ndeadline = "10s"\n')
    (await stage.rollway("env", "set", *_APP, "--file", str(settings))).worked()
    database = f"DATABASE_URL=sqlite:///{stage.folder / 'shop.db'}"
    (await stage.rollway("config", "set", *_APP, database)).worked()
    (await stage.rollway("config", "set", *_APP, "SECRET_KEY=only-for-the-hosts", "--secret")).worked()
    say("config set: DATABASE_URL, and SECRET_KEY encrypted to the environment's hosts")
    for tag, version in VERSIONS.items():
        (await stage.rollway("release", "create", *_APP, "--build", tag.removeprefix("v"), "--name", tag)).worked()
        say(f"release {tag}, whose answers say {version}")


async def first_deploy(stage: Stage, story: Story) -> None:
    stage.view.event("first deploy: v1.0.0")
    story.swaps["first deploy of v1"] = (await stage.rollway("swap", *_APP, "v1.0.0")).worked()
    await stage.start_load(VERSIONS["v1.0.0"])
    stage.view.event(f"users come: new connections and kept ones to all hosts on port {PORT}, and orders")
    await anyio.sleep(QUIET_S)


async def swap_with_kills(stage: Stage, story: Story, coordinator: Coordinator) -> None:
    """v1 to v2; in the middle of it a web process, the coordinator and the agent of a host are killed."""
    say = stage.view.event
    await stage.tell_load("phase", "swapping")
    await stage.tell_load("expect", VERSIONS["v1.0.0"], VERSIONS["v2.0.0"])
    say("swap to v2.0.0")
    swap = await stage.begin("swap", *_APP, "v2.0.0")

    async def first_done() -> str | None:
        rollout = (await coordinator.rollouts())[0]
        return next((h.host for h in rollout.hosts if rollout.release == "v2.0.0" and h.state == "done"), None)

    host = await stage.until(first_done, _STEP_S, "the first host of the swap")

    async def ready_there() -> tuple[str, int] | None:
        instances = [i for i in await web_instances(coordinator) if (i.host, i.release) == (host, "v2.0.0")]
        return next(((i.instance, i.pid) for i in instances if i.state == "ready" and i.pid is not None), None)

    victim, pid = await stage.until(ready_there, _STEP_S, f"v2.0.0 on {host}")
    await stage.tell_load("kill", stage.hosts[host])
    await anyio.to_thread.run_sync(kill_tree, pid)
    await stage.tell_load("killed")
    say(f"{host} has v2.0.0; kill -9 of its {victim} (pid {pid})")
    kill_role(stage.up_pid, "coordinator/")
    say("kill -9 of the coordinator, in the middle of the swap")
    moving = next(name for name in stage.hosts if name != host)
    kill_role(stage.up_pid, f"hosts/{moving}/")
    say(f"kill -9 of the agent of {moving}, which is next")
    story.swaps["v1 to v2, with three kills"] = await swap.end()
    say(f"swap to v2.0.0: {outcome(story.swaps['v1 to v2, with three kills'])}")
    story.restarts = sum(instance.restarts for instance in await coordinator.ps())
    story.releases["v2"] = [instance.release for instance in await web_instances(coordinator)]
    say(f"requests cut by the kill of {victim}: {(await stage.tell_load('tally')).cut}")
    await settle(stage, coordinator, "v2.0.0")


async def kill_an_agent(stage: Stage, story: Story, coordinator: Coordinator) -> None:
    """All that a host runs goes on without its agent, and the next agent takes it up."""
    say, host = stage.view.event, next(iter(stage.hosts))

    async def pids() -> dict[str, int | None]:
        return {one.instance: one.pid for one in await coordinator.ps() if one.host == host and one.state == "ready"}

    before = await pids()
    kill_role(stage.up_pid, f"hosts/{host}/")
    say(f"kill -9 of the agent of {host}, which supervises {len(before)} processes")

    async def taken_up() -> dict[str, int | None] | None:
        connected = any(one.host == host and one.connected for one in (await coordinator.status()).hosts)
        return found if connected and set(found := await pids()) == set(before) else None

    await anyio.sleep(QUIET_S)
    story.kept = (before, await stage.until(taken_up, _STEP_S, f"the return of {host}'s agent"))
    say(f"the next agent of {host} has taken up {len(story.kept[1])} processes")


async def refused_release(stage: Stage, story: Story, coordinator: Coordinator) -> None:
    """v3 never becomes ready: nobody sees it."""
    say = stage.view.event
    await stage.tell_load("phase", "swapping")
    say("swap to v3.0.0, whose readiness probe fails for ever")
    story.swaps["v3, refused and undone"] = await stage.rollway("swap", *_APP, "v3.0.0")
    say(f"swap to v3.0.0: {outcome(story.swaps['v3, refused and undone'])}")
    story.releases["v3"] = [instance.release for instance in await web_instances(coordinator)]
    await settle(stage, coordinator, "v2.0.0")


async def rollback(stage: Stage, story: Story, coordinator: Coordinator) -> None:
    say = stage.view.event
    await stage.tell_load("phase", "swapping")
    await stage.tell_load("expect", VERSIONS["v1.0.0"], VERSIONS["v2.0.0"])
    say("rollback by hand")
    story.swaps["rollback to v1"] = await stage.rollway("rollback", *_APP)
    say(f"rollback: {outcome(story.swaps['rollback to v1'])}")
    story.releases["v1"] = [instance.release for instance in await web_instances(coordinator)]
    await settle(stage, coordinator, "v1.0.0")


async def settle(stage: Stage, coordinator: Coordinator, release: str) -> None:
    """A quiet while, in which every answer must come from `release`; the old ones may finish their drain before it."""

    async def drained() -> bool | None:
        web = [instance for instance in await coordinator.ps() if instance.process == "web"]
        alone = everywhere([instance.release for instance in web], release)
        return True if alone and {instance.host for instance in web} == set(stage.hosts) else None

    await stage.until(drained, _STEP_S, f"the drain of all but {release}")
    await stage.tell_load("expect", VERSIONS[release])
    await stage.tell_load("phase", "quiet")
    await anyio.sleep(QUIET_S)


async def web_instances(coordinator: Coordinator) -> list[Row]:
    return [i for i in await coordinator.ps() if i.process == "web" and i.state in {"ready", "unready", "starting"}]


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and all that it started, as the kernel's own out-of-memory killer may do; until it is gone.

    What it holds is cut when the kernel tears it down, which is a little later than the signal is sent.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        members = [process, *process.children(recursive=True)]
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(members, timeout=GONE_S)


def kill_role(up_pid: int, folder: str) -> None:
    """SIGKILL to the one child of `up` whose settings lie in this folder."""
    for child in psutil.Process(up_pid).children():
        with suppress(psutil.NoSuchProcess):
            if any(f"/{folder}" in word for word in child.cmdline()):
                child.kill()


def outcome(done: Done) -> str:
    """How a rollout ended, in words."""
    try:
        rollout = msgspec.json.decode(done.answer, type=RolloutShown)
    except msgspec.DecodeError:
        return f"exit code {done.code}: {done.error.strip()}"
    reason = f" ({rollout.reason})" if rollout.reason else ""
    return f"{rollout.state.replace('_', ' ')} after {done.seconds:.1f} s{reason}"


async def count_orders(address: str) -> int:
    """How many orders the shop has, open or done."""
    stream = await anyio.connect_tcp(address, PORT)
    async with stream:
        await stream.send(f"GET /orders HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        answer = bytearray()
        with suppress(anyio.EndOfStream):
            while True:
                answer += await stream.receive()
    counts = msgspec.json.decode(bytes(answer).partition(b"\r\n\r\n")[2], type=dict[str, object])
    return sum(count for key in ("open", "done") if isinstance(count := counts.get(key), int))


def proofs_of(story: Story) -> list[Proof]:
    tally, swaps = story.tally, story.swaps
    answered = tally.fresh + tally.kept + tally.orders
    return [
        Proof(
            "no request failed and no answer was wrong",
            tally.failed == 0 and answered > 0,
            f"{tally.failed} of {answered}" + "".join(f"; {reason}" for reason in tally.reasons[:3]),
        ),
        Proof(
            "no order was lost",
            story.orders in {tally.orders, tally.orders + 1},  # one may have been under way when the users left
            f"{tally.orders} confirmed, {story.orders} in the shop",
        ),
        Proof(
            "a swap survives kill -9 of a web process, of the coordinator and of an agent",
            swaps["v1 to v2, with three kills"].code == 0 and everywhere(story.releases["v2"], "v2.0.0"),
            outcome(swaps["v1 to v2, with three kills"]),
        ),
        Proof(
            "each was started again",
            story.restarts >= 1 and story.coordinator_restarts == 1 and story.agent_restarts > 1,
            f"web {story.restarts}, coordinator {story.coordinator_restarts}, agents {story.agent_restarts}",
        ),
        Proof(
            "an agent that is killed ends no process, and the next one takes up all",
            len(story.kept[0]) > 0 and story.kept[0] == story.kept[1],
            f"{len(story.kept[0])} before, {len(story.kept[0].items() & story.kept[1].items())} of them after",
        ),
        Proof(
            "a bad release is refused by its probe and undone by itself",
            swaps["v3, refused and undone"].code == RolledBackError.exit_code
            and everywhere(story.releases["v3"], "v2.0.0"),
            outcome(swaps["v3, refused and undone"]),
        ),
        Proof(
            "a rollback by hand brings back the release before",
            swaps["rollback to v1"].code == 0 and everywhere(story.releases["v1"], "v1.0.0"),
            outcome(swaps["rollback to v1"]),
        ),
    ]


def everywhere(releases: Sequence[str], release: str) -> bool:
    return len(releases) > 0 and set(releases) == {release}


def figures_of(story: Story) -> list[tuple[str, str]]:
    tally = story.tally
    figures = [
        ("requests", f"{tally.fresh} on new connections, {tally.kept} on kept ones, {tally.orders} orders"),
        ("failed or wrong", str(tally.failed)),
        ("cut by kill -9", f"{tally.cut} in the hands of the killed web process: nobody can save these"),
    ]
    for phase, latency in sorted(tally.latency.items()):
        figures.append((f"latency, {phase}", f"p50 {latency.p50} ms, p95 {latency.p95} ms, p99 {latency.p99} ms"))
    figures += [(name, f"{done.seconds:.1f} s") for name, done in story.swaps.items()]
    restarts = f"{story.restarts} of instances, {story.coordinator_restarts} of the coordinator"
    figures.append(("restarts", f"{restarts}, {story.agent_restarts} of agents"))
    figures.append(("time", f"{story.total_s:.0f} s, after {story.setup_s:.0f} s of set-up"))
    return figures
