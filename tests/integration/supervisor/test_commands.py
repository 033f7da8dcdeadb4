"""Probes that run a command beside an instance: what it sees, what counts, and that nothing of it is ever left."""

import ast
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest
from msgspec import structs

from agent.errors import RollwayError
from agent.host import orphans
from agent.linux import cgroup, procfs
from agent.linux.spawn import keep_own_fds
from agent.model.process import ExecCheck, Probe, Probes, ProcessType, StopPolicy
from agent.supervisor.commands import Commands
from agent.supervisor.finding import Finding
from tests.integration.limits import few_fds
from tests.integration.supervisor.conftest import House, Notes, Slot, app, emptied, lives, script, worker
from tests.integration.supervisor.test_adopt import an_agent

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]


def asks(command: str, *, timeout_ms: int = 5_000, failures: int = 3) -> Probe:
    return Probe(check=ExecCheck(command=command), period_ms=100, timeout_ms=timeout_ms, failures=failures)


def readied_by(command: str, *, timeout_ms: int = 5_000) -> Probes:
    return Probes(readiness=asks(command, timeout_ms=timeout_ms, failures=1))


def asked(probes: Probes, process: ProcessType | None = None) -> ProcessType:
    return structs.replace(process or worker("sleep 600"), probes=probes)


def hanging(notes: Path) -> ProcessType:
    return asked(Probes(liveness=asks(app("probe.py", "hang", notes), timeout_ms=600_000)))


def any_lives(numbers: list[str]) -> bool:
    return any(lives(int(number)) for number in numbers)


@pytest.fixture(params=["cgroup", "walk"])
def root(request: pytest.FixtureRequest) -> Iterator[Path | None]:
    """Where leaves are made: every promise holds with cgroup v2 and without."""
    above = cgroup.detect() if request.param == "cgroup" else None
    if request.param == "cgroup" and above is None:
        pytest.skip("this machine has no writable cgroup v2")
    made = cgroup.create(above, f"rollway-test-{uuid.uuid4()}") if above else None
    yield made
    if made is not None:
        cgroup.remove(made)


@pytest.fixture
async def either(root: Path | None) -> AsyncIterator[House]:
    """In a folder whose path leaves room for the address of a socket."""
    with tempfile.TemporaryDirectory(prefix="rw-") as folder:
        house = House(Path(folder), cgroup_root=root)
        async with anyio.create_task_group() as tasks:
            await tasks.start(house.supervisor.run)
            yield house
            await emptied(house)
            tasks.cancel_scope.cancel()


async def test_the_exit_code_decides(house: House) -> None:
    """Code 0 is well, any other is not, and the last of what the command wrote is shown; `shell` is the type's own."""
    (sign := house.folder / "sign").touch()
    command = f"test ! -e {sign} || {{ echo first; printf '\\033[31mno   database\\n' >&2; exit 3; }}"
    key = house.launch(asked(readied_by(command), script("exec sleep 600")))
    found = "its command exited with code 3: first [31mno database (readiness probe)"
    await house.until(lambda: house.view().detail == found)
    assert house.view().state == "starting"
    sign.unlink()
    await house.state("ready")
    sign.touch()
    assert (await house.state("unready")).detail == found
    await house.end(key)


async def test_a_liveness_command_restarts(house: House) -> None:
    """A command that says three times that it does not live has the instance started again; a signal is such an end."""
    key = house.launch(asked(Probes(liveness=asks("sh -c 'kill -9 $$'"))))
    await house.until(lambda: house.view().restarts > 0)
    reasons = [fields["reason"] for text, fields in house.told if text == "is restarted"]
    assert reasons[0] == "its command was ended by SIGKILL (liveness probe)"
    await house.end(key)


async def test_what_cannot_be_executed_is_told_with_its_reason(house: House) -> None:
    """A command that is not there fails its probe, and is named with the system's reason."""
    key = house.launch(asked(Probes(startup=asks("no-such-program -q", failures=1_000))))
    await house.until(lambda: "no-such-program" in house.view().detail)
    detail = house.view().detail
    assert detail.startswith("cannot be run: no-such-program is not on PATH")
    assert detail.endswith("No such file or directory (startup probe)")
    await house.end(key)


async def test_it_sees_what_the_instance_sees(house: House, slot: Slot, notes: Notes) -> None:
    """The same environment, folder, umask and user; the sockets and the voice are the instance's alone."""
    keep_own_fds()
    own, beside = house.folder / "own", house.folder / "beside"
    process = script(f"{app('probe.py', 'look', own)}; echo own >> {notes.path}; exec sleep 600")
    look = f"{app('probe.py', 'look', beside)}; echo beside >> {notes.path}"
    key = house.launch(asked(readied_by(look), process), **(slot.given | {"config": {"COLOUR": "green"}}))
    while {"own", "beside"} - set(notes.words()):
        await notes.until(len(notes.words()) + 1)
    seen, seen_beside = (ast.literal_eval(file.read_text().splitlines()[0]) for file in (own, beside))
    only = {name for name in seen["env"] if name not in seen_beside["env"]}
    assert only == {"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET"}
    assert {name for name in seen_beside["env"] if name not in seen["env"]} == {"ROLLWAY_PROBE"}
    shared = seen["env"].keys() & seen_beside["env"].keys() - {"SHLVL", "_", "PWD"}
    assert {name: seen["env"][name] for name in shared} == {name: seen_beside["env"][name] for name in shared}
    assert (seen["fds"], seen_beside["fds"]) == ([0, 1, 2, 3], [0, 1, 2])
    assert all(seen[word] == seen_beside[word] for word in ("cwd", "umask", "uid"))
    assert seen_beside["env"]["COLOUR"] == "green"
    await house.end(key)


async def test_one_that_hangs_is_killed_with_all_that_it_started(either: House, notes: Notes) -> None:
    """At its timeout nothing of it lives: no daemon in a session of its own, nobody who heeds no SIGTERM."""
    probes = Probes(liveness=asks(app("probe.py", "hang", notes.path), timeout_ms=1_500, failures=1))
    key = either.launch(asked(probes))
    await either.until(lambda: either.texts().count("started") > 1)
    reasons = [fields["reason"] for text, fields in either.told if text == "is restarted"]
    assert reasons[0] == "its command did not end within 1500 ms (liveness probe)"
    first = (await notes.until(2))[:2]
    assert not any_lives(first)
    await either.end(key)
    assert not any_lives(notes.words())


async def test_it_ends_with_its_instance(either: House, notes: Notes) -> None:
    """An instance that ends, by itself or by a stop, leaves no command of its probes behind, and no leaf."""
    key = either.launch(hanging(notes.path))
    first = await notes.until(2)
    pid = either.view().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await either.until(lambda: either.texts().count("started") > 1)
    assert not any_lives(first)
    await notes.until(4)
    await either.end(key)
    assert not any_lives(notes.words())
    assert either.cgroup_root is None or not (either.cgroup_root / str(key)).exists()


async def test_it_is_no_process_of_the_instance(either: House, notes: Notes) -> None:
    """A command that speaks by the instance's own socket is a stranger: it cannot say that the instance is stopping."""
    command = f"{app('probe.py', 'speak', '-')} && echo said >> {notes.path}"
    key = either.launch(asked(readied_by(command), script("exec sleep 600")))
    await notes.until(4)
    assert either.view().state == "ready"
    await either.end(key)


async def test_who_writes_without_end_is_bounded(house: House) -> None:
    """It fails at its timeout, a little of it is shown on one line, and the agent neither spins nor grows."""
    begun_s = time.process_time()
    key = house.launch(asked(readied_by(app("probe.py", "flood", "-"), timeout_ms=1_000)))
    await house.until(lambda: "did not end" in house.view().detail)
    assert time.process_time() - begun_s < 0.6
    detail = house.view().detail
    assert detail.startswith("its command did not end within 1000 ms: ")
    assert "more [31m and more" in detail
    assert len(detail) < 400
    assert detail.isprintable()
    await house.end(key)


async def test_who_writes_much_and_ends_is_well(house: House) -> None:
    """What a command writes blocks it no longer than it takes to pass it over."""
    key = house.launch(asked(readied_by(app("probe.py", "chatter", "-"))))
    await house.state("ready")
    await house.end(key)


async def test_never_two_at_once(house: House, notes: Notes) -> None:
    """A command that takes longer than its period, and an instance that comes and goes: one at a time all the same."""
    command = f"exec 9>lock; flock -n 9 || echo twice >> {notes.path}; echo turn >> {notes.path}; sleep 0.15"
    key = house.launch(asked(Probes(liveness=asks(command)), script("exec sleep 0.5")))
    await notes.until(9)
    assert house.view().restarts > 0
    await house.end(key)
    assert set(notes.words()) == {"turn"}


async def test_while_it_drains_only_readiness_is_asked(house: House, notes: Notes) -> None:
    """From the stop on nobody asks whether it lives; whether it is ready is asked and told until its end."""
    (ready := house.folder / "ready").touch()
    go = house.folder / "go"
    probes = Probes(readiness=asks(f"test -e {ready}", failures=1), liveness=asks(f"echo lives >> {notes.path}"))
    process = script(f"trap '' TERM; while [ ! -e {go} ]; do sleep 0.05; done")
    process = structs.replace(process, stop=StopPolicy(linger_ms=0, grace_ms=60_000))
    key = house.launch(asked(probes, process))
    await house.state("ready")
    await notes.until(1)
    house.supervisor.stop(key)
    await house.state("draining")
    asked_by_then = len(notes.words())
    ready.unlink()
    await house.until(lambda: house.texts()[-1] == "unready")
    ready.touch()
    await house.until(lambda: house.texts()[-1] == "ready")
    assert house.view().state == "draining"
    assert len(notes.words()) <= asked_by_then + 1, "one that had begun may have ended"
    go.touch()
    await house.state("stopped")


async def left_by_a_killed_agent(tmp_path: Path, root: Path | None, notes: Notes) -> list[str]:
    """The processes of a command in the middle of which its agent was killed."""
    words = [sys.executable, str(Path(__file__).parent / "apps" / "doomed.py"), str(tmp_path), str(root or "")]
    async with await anyio.open_process(words, env={**os.environ, "PYTHONPATH": str(ROOT)}) as doomed:
        left = await notes.until(2)
        doomed.kill()
    assert all(lives(int(number)) for number in left), "nobody was there to end them"
    return left


async def test_a_drain_in_the_place_of_a_killed_agent_leaves_none(
    tmp_path: Path, root: Path | None, notes: Notes
) -> None:
    """Who drains by the records ends the commands of probes as well, though no record names them."""
    left = await left_by_a_killed_agent(tmp_path, root, notes)
    assert await orphans.drain(orphans.find(tmp_path / "run"), tmp_path / "run", lambda _left: None) == ()
    assert not any_lives(left)


async def test_a_killed_agent_leaves_none(tmp_path: Path, root: Path | None, notes: Notes) -> None:
    """Killed in the middle of a probe, an agent leaves its command to the next one: it ends that, and no instance."""
    left = await left_by_a_killed_agent(tmp_path, root, notes)
    house = House(tmp_path, cgroup_root=root)
    async with an_agent(house):
        assert not any_lives(left)
        await house.until(lambda: "adopted" in house.texts())
        pid = house.view().pid
        await notes.until(4)
        assert (lives(pid), house.view().pid, house.view().restarts) == (True, pid, 0)
        (key,) = house.supervisor._instances
        await house.end(key)
    assert not any_lives(notes.words())
    assert procfs.marks(f"ROLLWAY_PROBE={tmp_path}") == set()


async def test_a_next_agent_runs_it_in_the_same_config(tmp_path: Path, notes: Notes) -> None:
    """The config of what an earlier agent started is read again; where that fails it is told, and nobody is ended."""
    house = House(tmp_path)
    process = asked(Probes(liveness=asks(f"echo $COLOUR >> {notes.path}", failures=1)), script("exec sleep 600"))
    async with an_agent(house):
        house.launch(process, config={"COLOUR": "green"})
        await notes.until(1)

    async def cannot() -> dict[str, str]:
        raise RollwayError("cannot open the config: no key", "Join again.")

    async def can() -> dict[str, str]:
        return {"COLOUR": "blue"}

    async with an_agent(house, config=cannot):
        await house.until(lambda: "its liveness probe cannot be run" in house.texts())
    before = notes.words()
    async with an_agent(house, config=can):
        assert (await notes.until(len(before) + 1))[-1] == "blue"
        assert (house.view().state, house.view().restarts) == ("ready", 0)
        (key,) = house.supervisor._instances
        await house.end(key)
    assert set(before) == {"green"}


@pytest.mark.parametrize("descriptors", range(1, 8))
async def test_who_has_no_descriptor_to_ask_with_finds_nothing(house: House, descriptors: int) -> None:
    """An app is not found dead because its agent has no descriptor left to run a command or to see its end."""
    key = house.launch(worker("sleep 600"))
    await house.state("ready")
    instance, found = house.supervisor._instances[key], list[Finding | None]()
    commands = Commands(instance._around, instance._planned)

    async def ask() -> None:
        found.append(await commands.ask("liveness", "true", 5_000))

    async with anyio.create_task_group() as tasks:
        with few_fds(descriptors):
            tasks.start_soon(ask)
            with anyio.move_on_after(0.05):
                await anyio.sleep_forever()
    assert found in ([None], [Finding(ok=True)])
    assert descriptors > 1 or found == [None]
    assert await commands.ask("liveness", "true", 5_000) == Finding(ok=True)
    await house.end(key)
