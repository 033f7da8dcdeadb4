"""A full disk, at every place that writes: it is said what and where, nothing is lost or half there, and it goes on."""

import ast
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import anyio
import pytest

from agent.coordinator.db.engine import Database
from agent.coordinator.leases import Leases
from agent.errors import RollwayError
from agent.linux import service
from agent.model.ids import HostName, ProcessName
from agent.model.lease import LeaseAsk, LeaseName
from tests.integration.coordinator.fleet import free_port
from tests.integration.disk.conftest import Disk, Lack
from tests.integration.disk.places import ELSEWHERE, PLACES, Place
from tests.integration.host.source import APP, ENVIRONMENT
from tests.integration.supervisor.conftest import House, lives, script
from tests.test_tidy import ROOT, Source

LACKS: Final[dict[str, Lack]] = {"no byte is left": "bytes", "no inode is left": "inodes"}
DEADLINE_S: Final = 20
H1, H2 = HostName("h1"), HostName("h2")
CLOCK, MAIL, WORKERS = (
    LeaseAsk(name=LeaseName(APP, ENVIRONMENT, ProcessName(name)), hold_ms=30_000, total=total)
    for name, total in (("clock", 0), ("mail", 0), ("worker", 3))
)
WRITES: Final = (
    *("*.write_atomically", "*.create_exclusive", "*.receive.receive", "*.mkdir", "os.mkfifo", "*.fifo.make"),
    *("*.symlink_to", "os.symlink", "*.hardlink_to", "tempfile.*", "*.create_engine", "*.unixsocket.listen"),
    *("os.open", "*.open", "*.write_text", "*.write_bytes"),
)
CREATES: Final = ("O_CREAT", "_NEW", "_CREATE", "'xb'", "'wb'", "'w'")


def what_is_said(place: Place, disk: Disk, elsewhere: Path) -> str:
    """Of a failure, as a person sees it; empty where there was none."""
    try:
        place.write(disk.root, elsewhere)
    except RollwayError as error:
        return str(error) if error.what_to_do else f"nobody says what to do: {error}"
    except OSError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("lack", LACKS.values(), ids=LACKS)
def test_a_full_disk_is_said_and_survived(place: Place, lack: Lack, disk: Disk, tmp_path: Path) -> None:
    """What and where is said, all is as it was, and with room again the same works."""
    place.before(disk.root, tmp_path)
    before = disk.content()
    disk.fill(lack)
    said = what_is_said(place, disk, tmp_path)
    # What needs no bytes is there.
    assert said or (lack == "bytes" and place.holds(disk.root, tmp_path))
    if said:
        assert str(disk.root) in said
        assert not said.startswith("nobody says")
        assert disk.content() == before
        disk.free()
        place.write(disk.root, tmp_path)
    assert place.holds(disk.root, tmp_path)


@pytest.mark.parametrize("left", [1, 2, 3])
@pytest.mark.parametrize("lack", LACKS.values(), ids=LACKS)
def test_a_first_start_that_stops_half_way_goes_on(lack: Lack, left: int, disk: Disk, tmp_path: Path) -> None:
    """With room for some of what a coordinator makes at first, the next start with room completes it."""
    place = PLACES["the first start of a coordinator"]
    disk.fill(lack, left)
    assert what_is_said(place, disk, tmp_path)
    made = {name: content for name, content in disk.content().items() if name.endswith((".key", ".age", "_token"))}
    disk.free()
    place.write(disk.root, tmp_path)
    assert place.holds(disk.root, tmp_path)
    kept = disk.content()
    assert made.items() - {("tls/ca.key", made.get("tls/ca.key"))} <= kept.items()


@pytest.mark.parametrize("lack", LACKS.values(), ids=LACKS)
def test_a_role_starts_again_on_a_full_disk(lack: Lack, disk: Disk) -> None:
    """Who has been there before takes its lock again, full disk or not, and is named to whoever comes second."""
    os.close(service.hold(disk.root, "an agent"))
    disk.fill(lack)
    lock = service.hold(disk.root, "an agent")
    assert service.holder(disk.root) == os.getpid()
    os.close(lock)


@pytest.mark.anyio
async def test_an_instance_starts_by_itself_when_there_is_room_again(disk: Disk) -> None:
    """Without an inode for its folder an instance waits and says why; with one it runs, and nobody had to ask."""
    house = House(disk.root)
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        disk.fill("inodes")
        key = house.launch(script("echo runs; exec sleep 60"))
        assert "No space left on device" in (await house.state("backoff", "exec_failed")).detail
        disk.free()
        await house.state("ready")
        await house.until(lambda: house.messages() == ["runs"])
        await house.end(key)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_without_a_byte_for_its_record_an_instance_runs(disk: Disk) -> None:
    """What cannot be recorded runs all the same, ends when it is told to, and it is said what that means."""
    house = House(disk.root)
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        disk.fill("bytes")
        key = house.launch(script("exec sleep 60"))
        pid = (await house.state("ready")).pid
        assert "cannot be recorded: a next agent would not know of it" in house.texts()
        await house.end(key)
        assert not lives(pid)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_lease_is_renewed_on_a_full_disk(disk: Disk) -> None:
    """Whoever has a lease keeps it, whatever else is asked for that cannot be stored; with room that is given too."""
    database = Database(f"sqlite:///{disk.root}/coordinator.db")
    try:
        leases = await Leases.load(database)
        assert await granted(leases, H1, CLOCK) == ["clock"]
        disk.fill("bytes")
        assert await granted(leases, H2, MAIL, WORKERS) == []
        assert await granted(leases, H1, CLOCK, MAIL, WORKERS) == ["clock"]
        disk.free()
        assert await granted(leases, H1, CLOCK, WORKERS) == ["clock", "worker"]
        assert await granted(leases, H2, MAIL) == ["mail"]
    finally:
        database.close()


async def granted(leases: Leases, host: HostName, *asks: LeaseAsk) -> list[str]:
    answers = await leases.ask(host, asks, {(APP, ENVIRONMENT): ()})
    return [answer.name.process for answer in answers if answer.granted]


@pytest.mark.parametrize("role", ["agent", "coordinator"])
def test_a_folder_that_cannot_be_made_is_named(role: str, disk: Disk, tmp_path: Path) -> None:
    """A role that finds no room for its state folder ends at once, with its name and what to do."""
    settings = tmp_path / f"{role}.toml"
    head = 'name = "h1"\ncoordinators = ["https://127.0.0.1:1"]\n' if role == "agent" else ""
    settings.write_text(f'{head}state_dir = "{disk.root}/state"\n')
    disk.fill("inodes")
    done = subprocess.run(
        [sys.executable, "-m", "agent", role, "run", "--config", str(settings)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"cannot make the folder {disk.root}/state: No space left on device" in done.stderr


@pytest.mark.parametrize("lack", LACKS.values(), ids=LACKS)
def test_a_coordinator_starts_again_when_there_is_room(lack: Lack, disk: Disk, tmp_path: Path) -> None:
    """On a full disk one that has been there before says so and ends, for systemd to try again; with room it starts."""
    settings, state = tmp_path / "coordinator.toml", disk.root / "state"
    settings.write_text(
        f'listen = ["127.0.0.1:{free_port()}"]\nadvertise = ["https://127.0.0.1:1"]\nstate_dir = "{state}"\n'
        f'database = "sqlite:///{state}/coordinator.db"\nstore = "file://{state}/store"\n'
        f'[tls]\nca = "{state}/ca.pem"\nkey = "{state}/key.pem"\ncertificate = "{state}/certificate.pem"\n'
    )

    def start() -> str:
        """What it says, which is asked to end as soon as it runs."""
        words = [sys.executable, "-m", "agent", "coordinator", "run", "--config", str(settings)]
        with subprocess.Popen(words, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as role:
            assert role.stdout is not None
            said = ""
            for line in role.stdout:
                said += line
                if "coordinator started" in line:
                    role.terminate()
        assert role.returncode == (0 if "coordinator started" in said else 1), said
        return said

    assert "coordinator started" in start()
    disk.fill(lack)
    said = start()
    assert "coordinator started" in said or ("Free space" in said and str(state) in said)
    assert "Traceback" not in said
    assert lack == "inodes" or "coordinator started" not in said
    disk.free()
    assert "coordinator started" in start()


def writes(source: Source) -> bool:
    """Whether a module makes files, by the calls in which that ends."""
    return any(
        fnmatch(name, pattern) and (not name.endswith("open") or any(word in ast.unparse(call) for word in CREATES))
        for call, name in source.calls()
        for pattern in WRITES
    )


def test_every_place_that_writes_is_tried() -> None:
    """A module that begins to write is in the table, or it says where that is tried; one that ceased is in neither."""
    modules = [Source(path.relative_to(ROOT).as_posix(), path.read_text()) for path in (ROOT / "agent").rglob("*.py")]
    found = {module.path for module in modules if writes(module)}
    covered = {module for place in PLACES.values() for module in place.covers}
    assert found == covered | ELSEWHERE.keys()
