"""Every place at which the agent and the coordinator write to a disk: what was there, what writes, what is then there.

`covers` names the modules of the place; test_disk_full.py compares them with the source. Each function is given the
disk that will be full, and a folder on another.
"""

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from msgspec import Struct
from sqlalchemy import Connection

from agent.artifacts.build import build_ref
from agent.artifacts.unpack import unpack, verify
from agent.cli import main as cli
from agent.coordinator import context, identity
from agent.coordinator.builds import Builds
from agent.coordinator.db import fleet
from agent.coordinator.db.engine import Database
from agent.coordinator.server import Server
from agent.decisions.swap.state import SwapState
from agent.host import drained
from agent.host.assignments import AppKey, States
from agent.host.control import Control
from agent.host.identity import keep_key
from agent.host.keys import HostKey
from agent.host.releases import Releases
from agent.linux import atomic, clock
from agent.linux.receive import receive
from agent.model.ids import AppName, Digest, ProcessName, ReleaseName
from agent.model.lease import LeaseName
from agent.model.process import AppSpec, StopPolicy
from agent.model.roles import CoordinatorSettings
from agent.stores.directory import DirectoryStore
from agent.supervisor.guards import Guards
from agent.wire.canonical import digest_of
from tests.integration.artifacts.test_build import WEB, commit
from tests.integration.artifacts.test_unpack import make_build, make_tree
from tests.integration.host.source import APP, ENVIRONMENT, FolderSource

BIG: Final = os.urandom(64 * 1024)
KEY: Final = AppKey(APP, ENVIRONMENT)
Do = Callable[[Path, Path], object]


def nothing(_disk: Path, _elsewhere: Path) -> None:
    """Nothing was there."""


class Place(Struct, frozen=True, kw_only=True):
    covers: tuple[str, ...]
    before: Do = nothing
    write: Do
    holds: Do
    """Whether it is there, whole."""


def file(name: str, write: Callable[[Path], object]) -> dict[str, Do]:
    """A place that makes one file of this name and no other."""
    return {
        "write": lambda disk, _elsewhere: write(disk / name),
        "holds": lambda disk, _elsewhere: (disk / name).stat().st_size > 0,
    }


def run(work: Callable[[], Coroutine[object, object, object]]) -> None:
    anyio.run(work)


async def chunks() -> AsyncIterator[bytes]:
    for start in range(0, len(BIG), 4096):
        yield BIG[start : start + 4096]


def download(target: Path) -> None:
    run(partial(receive, chunks(), target, digest=digest_of(BIG), size_bytes_max=len(BIG)))


def store(disk: Path, sequence: int) -> None:
    States(disk).store(KEY, SwapState(sequence=sequence))


# An archive that is uploaded


def archive_comes_in(disk: Path, _elsewhere: Path) -> None:
    (disk / "incoming").mkdir(exist_ok=True)
    builds = Builds(None, DirectoryStore(disk), disk / "incoming")  # type: ignore[arg-type]  # archives need no database
    run(partial(builds.receive, APP, digest_of(BIG), chunks()))


# A build that is made, and one that is unpacked


def commit_to_build(_disk: Path, elsewhere: Path) -> None:
    commit(elsewhere / "repo", {"rollway.toml": f'app = "shop"\n{WEB}', "bin/web": "#!/bin/sh\n", "big": BIG.hex()})


def build(disk: Path, elsewhere: Path) -> None:
    """Work folder and output both lie on the disk."""
    kept, tempfile.tempdir = tempfile.tempdir, str(disk)
    try:
        build_ref(elsewhere / "repo", "HEAD", None, disk / "out", lambda _line: None)
    finally:
        tempfile.tempdir = kept


def archive_to_unpack(_disk: Path, elsewhere: Path) -> None:
    make_build(make_tree(elsewhere / "tree"), elsewhere / "archive")


def unpacked(do: Callable[..., object], disk: Path, elsewhere: Path) -> bool:
    made = make_build(elsewhere / "tree", elsewhere / "again")
    do(*((disk / "target", made) if do is verify else (elsewhere / "archive", made, disk / "target")))
    return True


# A release that a host fetches


class Downloads(FolderSource):
    """Its archives come in as from the network."""

    async def archive(self, app: AppName, build: Digest, size_bytes: int, target: Path) -> None:
        sent = self._folder / "sent"
        await super().archive(app, build, size_bytes, sent)

        async def chunks() -> AsyncIterator[bytes]:
            yield sent.read_bytes()

        await receive(chunks(), target, digest=build, size_bytes_max=size_bytes)


def prepare_release(disk: Path, elsewhere: Path) -> None:
    (elsewhere / "source").mkdir(exist_ok=True)
    source = Downloads(elsewhere / "source")
    ref = source.add("v1", AppSpec(app=APP), files={"big": BIG.hex()})
    run(partial(Releases(disk, source).prepare, KEY, ref))


def release_is_there(disk: Path, elsewhere: Path) -> bool:
    source = FolderSource(elsewhere / "source")
    ref = source.add("v1", AppSpec(app=APP), files={"big": BIG.hex()})
    run(partial(Releases(disk, source).runnable, KEY, ref))
    return True


# A coordinator: first start, and what it commits


def settings(disk: Path) -> CoordinatorSettings:
    return CoordinatorSettings.below(str(disk))


def first_start(disk: Path, _elsewhere: Path) -> None:
    identity.prepare(settings(disk))
    with database(disk) as opened:
        run(partial(Server.open, settings(disk), opened))


@contextlib.contextmanager
def database(disk: Path) -> Iterator[Database]:
    opened = Database(settings(disk).database)
    try:
        yield opened
    finally:
        opened.close()


def tokens(disk: Path) -> set[str]:
    with database(disk) as opened:
        found: list[set[str]] = []

        async def read() -> None:
            found.append({row.name for row in await opened.run(fleet.list_tokens)})

        run(read)
    return found[0]


def commit_much(disk: Path, _elsewhere: Path) -> None:
    def write(connection: Connection) -> None:
        for number in range(400):
            fleet.store_token(connection, fleet.TokenRow(hash=f"{number:064}", name=f"{number:064}", role="viewer"), 0)

    with database(disk) as opened:
        run(partial(opened.run, write))


# A lease that a coordinator renews

LEASE: Final = LeaseName(APP, ENVIRONMENT, ProcessName("scheduler"))
MINUTE_MS: Final = 60_000


def renew(minutes: int, disk: Path, _elsewhere: Path) -> None:
    run(partial(Guards(disk, None).renew, LEASE, clock.now().after(minutes * MINUTE_MS), StopPolicy()))


def lasts(minutes: int, disk: Path, _elsewhere: Path) -> bool:
    guards = Guards(disk, None)
    guards.load()
    until = guards.until(LEASE)
    return until is not None and until.boottime_ms > clock.now().boottime_ms + (minutes - 1) * MINUTE_MS


PLACES: Final = {
    "a file that is replaced": Place(
        covers=("agent/linux/atomic.py",),
        before=lambda disk, _: (disk / "state").write_bytes(b"old"),
        write=lambda disk, _: atomic.write_atomically(disk / "state", BIG),
        holds=lambda disk, _: (disk / "state").read_bytes() == BIG,
    ),
    "a file that is new": Place(
        covers=("agent/linux/atomic.py",), **file("new", lambda path: atomic.create_exclusive(path, BIG))
    ),
    "a first rollway.toml": Place(
        covers=("agent/cli/init.py",), **file("rollway.toml", lambda path: cli.run(["init", str(path.parent)]))
    ),
    "a download": Place(
        covers=("agent/linux/receive.py", "agent/link/fetch.py"),
        **file("archive", download),
    ),
    "an archive that is uploaded": Place(
        covers=("agent/coordinator/builds.py", "agent/stores/directory.py"),
        write=archive_comes_in,
        holds=lambda disk, _: DirectoryStore(disk).open_archive(APP, digest_of(BIG)).read() == BIG,
    ),
    "a manifest in the store": Place(
        covers=("agent/stores/directory.py",),
        write=lambda disk, _: DirectoryStore(disk).put_manifest(APP, digest_of(BIG), BIG),
        holds=lambda disk, _: DirectoryStore(disk).read_manifest(APP, digest_of(BIG)) == BIG,
    ),
    "a release in the store": Place(
        covers=("agent/stores/directory.py",),
        write=lambda disk, _: DirectoryStore(disk).put_release(APP, ENVIRONMENT, ReleaseName("v1"), BIG),
        holds=lambda disk, _: DirectoryStore(disk).read_release(APP, ENVIRONMENT, ReleaseName("v1")) == BIG,
    ),
    "a build that is made": Place(
        covers=("agent/artifacts/build.py", "agent/artifacts/export.py"),
        before=commit_to_build,
        write=build,
        holds=lambda disk, _: len(list((disk / "out").iterdir())) == 2,
    ),
    "a build that is unpacked": Place(
        covers=("agent/artifacts/unpack.py",),
        before=archive_to_unpack,
        write=partial(unpacked, unpack),
        holds=partial(unpacked, verify),
    ),
    "a release that a host fetches": Place(
        covers=("agent/host/releases.py",),
        before=lambda disk, _: Releases(disk, FolderSource(disk)).sweep(),
        write=prepare_release,
        holds=release_is_there,
    ),
    "what a host is to run": Place(
        covers=("agent/host/assignments.py",),
        before=lambda disk, _: store(disk, 1),
        write=lambda disk, _: store(disk, 2),
        holds=lambda disk, _: States(disk).load(lambda *_: None)[KEY].sequence == 2,
    ),
    "the mark of a drained host": Place(
        covers=("agent/host/drained.py",),
        write=lambda disk, _: drained.put(disk),
        holds=lambda disk, _: drained.is_there(disk),
    ),
    "a lease that is renewed": Place(
        covers=("agent/supervisor/guards.py",),
        before=partial(renew, 10),
        write=partial(renew, 30),
        holds=partial(lasts, 30),
    ),
    "the age key of a host": Place(covers=("agent/host/keys.py",), **file("age.key", HostKey.of)),
    "the key of a host that joins": Place(
        covers=("agent/host/identity.py", "agent/host/join.py"), **file("key.pem", keep_key)
    ),
    "the socket of the agent": Place(
        covers=("agent/host/control.py",),
        write=lambda disk, _: Control(disk, None),
        holds=lambda disk, _: (disk / "agent.sock").is_socket(),
    ),
    "the first start of a coordinator": Place(
        covers=(
            *("agent/coordinator/identity.py", "agent/coordinator/ca.py", "agent/coordinator/server.py"),
            *("agent/coordinator/keys.py", "agent/coordinator/tokens.py", "agent/coordinator/db/engine.py"),
        ),
        write=first_start,
        holds=lambda disk, _: tokens(disk) == {"bootstrap"},
    ),
    "a commit of the coordinator": Place(
        covers=("agent/coordinator/db/engine.py",),
        before=first_start,
        write=commit_much,
        holds=lambda disk, _: len(tokens(disk)) == 401,
    ),
    "the client.toml of the first operator": Place(
        covers=("agent/coordinator/context.py",),
        before=lambda _, elsewhere: first_start(elsewhere, elsewhere),
        write=lambda disk, elsewhere: context.write(settings(elsewhere), disk),
        holds=lambda disk, _: (disk / "client.toml").stat().st_size > 0,
    ),
}
ELSEWHERE: Final = {
    "agent/supervisor/folder.py": "test_an_instance_starts_by_itself_when_there_is_room_again",
    "agent/supervisor/pipes.py": "test_an_instance_starts_by_itself_when_there_is_room_again",
    "agent/linux/fifo.py": "test_an_instance_starts_by_itself_when_there_is_room_again",
    "agent/supervisor/records.py": "test_without_a_byte_for_its_record_an_instance_runs",
    "agent/linux/service.py": "test_a_role_starts_again_on_a_full_disk",
    "agent/host/main.py": "test_a_folder_that_cannot_be_made_is_named",
    "agent/coordinator/main.py": "test_a_folder_that_cannot_be_made_is_named",
    "agent/linux/cgroup.py": "the kernel's own file system is never full",
    "agent/linux/spawn.py": "the same",
    "agent/cli/agent_drain.py": "makes the folder that host/drained then writes to",
    "agent/cli/build.py": "makes the folder that artifacts/build then writes to",
    "agent/local/layout.py": "`rollway up` tells every error of the disk by itself, before anything runs",
    "agent/local/dev/run.py": "makes its temporary folder, or tells why not, before anything runs",
    "agent/local/demo.py": "a demonstration in a folder of its own",
    "agent/local/stage.py": "a demonstration in a folder of its own",
}
