"""Instances of another user: who they are, what they can and cannot do; nobody gains privileges by what it runs."""

import os
import pwd
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from msgspec import structs

from agent.model.process import ExecCheck, NotifyCheck, Probe, Probes, Sandbox
from tests.integration.supervisor.conftest import House, script
from tests.integration.supervisor.keeper import Keeper
from tests.integration.supervisor.test_adopt import an_agent
from tests.integration.users import UID, with_user_of_apps, without_user_of_apps

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
DAEMON = "daemon"
SAYS = (
    'id -u; id -g; id -G; grep -E "^(NoNewPrivs|CapEff|CapInh)" /proc/self/status; echo again >/dev/stdout; '
    'echo mine >"$TMPDIR/file" && cat "$TMPDIR/file"; echo "$HOME $USER $LOGNAME"; test -w . || echo "not its folder"; '
    'trap "until test -r $ROLLWAY_DRAIN_FILE; do sleep 0.1; done; echo drains; exit" TERM; sleep 600 & wait'
)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder that another user can get into."""
    with tempfile.TemporaryDirectory(prefix="rw-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def keeper(short: Path) -> Iterator[Keeper]:
    kept = Keeper(short)
    yield kept
    kept.close()


@pytest.fixture
def house(short: Path, keeper: Keeper) -> House:
    return House(short, store=keeper.store)


@pytest.mark.anyio
async def test_an_instance_is_the_user_that_the_app_names(house: House, keeper: Keeper) -> None:
    """With its groups and without capabilities; its TMPDIR, its output opened again and its notices are its own."""
    found = pwd.getpwnam(DAEMON)
    process = structs.replace(
        script(SAYS),
        sandbox=Sandbox(user=DAEMON),
        probes=Probes(startup=Probe(check=NotifyCheck())),
    )
    async with an_agent(house):
        key = house.launch(process)
        await house.until(lambda: "not its folder" in house.messages() and house.view().pid is not None)
        assert house.messages() == [
            str(found.pw_uid), str(found.pw_gid), " ".join(map(str, os.getgrouplist(DAEMON, found.pw_gid))),
            "CapInh:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "again", "mine",
            f"{found.pw_dir} {DAEMON} {DAEMON}", "not its folder",
        ]  # fmt: skip
        assert (house.folder / "run" / "i" / str(key) / "notify").stat().st_uid == found.pw_uid
        pid = house.view().pid
    async with an_agent(house, keeper.inherited()):
        assert house.view().pid == pid
    async with an_agent(house):  # without a store it hears at a new socket, which is that user's again
        assert house.view().pid == pid
        assert (house.folder / "run" / "i" / str(key) / "notify").stat().st_uid == found.pw_uid
        await house.end(key)
        assert house.messages()[-1] == "drains"


@pytest.mark.anyio
async def test_what_an_app_says_of_its_user_goes_before(house: House) -> None:
    """HOME out of the release's config is what the process sees; who it is by name is told beside that."""
    async with an_agent(house):
        process = structs.replace(script('echo "$HOME $USER"; exec sleep 600'), sandbox=Sandbox(user=DAEMON))
        key = house.launch(process, config={"HOME": "/srv/shop"})
        await house.until(lambda: house.messages() == [f"/srv/shop {DAEMON}"])
        await house.end(key)


@pytest.mark.anyio
async def test_nobody_gains_privileges(house: House) -> None:
    """What is executed with a set-user-id bit changes nobody, whoever it is."""
    async with an_agent(house):
        key = house.launch(script("grep NoNewPrivs /proc/self/status; exec sleep 600"))
        await house.until(lambda: house.messages() == ["NoNewPrivs:\t1"])
        await house.end(key)


@pytest.mark.anyio
async def test_a_user_that_is_not_there_is_named(house: House) -> None:
    """The instance is not started, as root least of all."""
    async with an_agent(house):
        key = house.launch(structs.replace(script("id -u"), sandbox=Sandbox(user="nobody-knows")))
        assert "this host has no user nobody-knows" in (await house.state("exec_failed")).detail
        assert house.messages() == []
        await house.end(key)


WHO = {
    "an app that names nobody": (Sandbox(as_app=True), with_user_of_apps, (UID, "rollway-app")),
    "where the host has no such user": (Sandbox(as_app=True), without_user_of_apps, (0, "")),
    "an app that asks for root": (Sandbox(user="root"), with_user_of_apps, (0, "root")),
    "what was built before there was such a user": (Sandbox(), with_user_of_apps, (0, "")),
}


@pytest.mark.parametrize(("sandbox", "machine", "is_then"), WHO.values(), ids=WHO)
def test_who_an_app_is_by_itself(
    sandbox: Sandbox, machine: Callable[[Callable[[], None]], None], is_then: tuple[int, str], short: Path
) -> None:
    """Not root, on a host that has the user for it, unless the app says so or is older; nor its probes and commands."""
    says = 'echo $(id -u) $USER; test -O "$TMPDIR" && echo its own'
    uid, name = is_then

    async def run() -> None:
        house = House(short)
        probe = Probe(check=ExecCheck(command=f"test $(id -u) = {uid}"), period_ms=100)
        process = structs.replace(script(f"{says}; exec sleep 600"), sandbox=sandbox, probes=Probes(readiness=probe))
        async with an_agent(house):
            assert await house.supervisor.refusal([process]) == ""
            key = house.launch(process)
            await house.until(lambda: len(house.messages()) == 2)
            assert house.messages() == [f"{uid} {name}".rstrip(), "its own"]
            await house.state("ready")
            await house.end(key)
            migrated = await house.supervisor.run_once(house.admin(says, sandbox=sandbox))
            assert migrated.output.splitlines() == house.messages()[:2]

    machine(lambda: anyio.run(run))
