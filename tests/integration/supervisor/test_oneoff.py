"""Admin processes: run once, their output kept, their end told as it was, nothing of them left."""

import anyio
import pytest

from agent.linux import procfs
from agent.model.process import Limits
from agent.supervisor.launchable import AdminExit
from agent.supervisor.oneoff import OUTPUT_BYTES_MAX
from tests.integration.supervisor.conftest import House, app, lives

pytestmark = pytest.mark.anyio


async def test_a_command_runs_in_the_environment_of_its_release(house: House) -> None:
    """Exit code and output come back, and its lines go the way of all output, as process `release`."""
    ended = await house.supervisor.run_once(house.admin('echo "$COLOUR"; echo oops >&2; exit 3'))
    assert (ended.exit_code, ended.succeeded, ended.timed_out) == (3, False, False)
    assert sorted(ended.output.splitlines()) == ["green", "oops"]
    assert {(record["process"], record["message"]) for record in house.records} == {
        ("release", "green"), ("release", "oops"),
    }  # fmt: skip
    assert (await house.supervisor.run_once(house.admin("true"))).succeeded


async def test_the_end_of_a_long_output_is_kept(house: House) -> None:
    """Of what a command writes the last 8 KiB come back."""
    ended = await house.supervisor.run_once(house.admin(app("lines.py", 5_000), shell=False))
    assert len(ended.output) == OUTPUT_BYTES_MAX
    assert ended.output.endswith("line 4999\n")
    assert len(house.records) == 5_000


async def test_a_command_that_takes_too_long_is_ended_with_all_it_started(house: House) -> None:
    """After the timeout nothing of the command runs any more, and what it said until then is kept."""
    ended = await house.supervisor.run_once(house.admin("sleep 600 & echo $!; wait", timeout_ms=500))
    assert (ended.timed_out, ended.exit_code, ended.succeeded) == (True, None, False)
    assert not lives(int(ended.output))


ENDINGS = {
    "at its timeout": ("echo so far; sleep 600", "so far\n\nended at its timeout"),
    "by a signal": ("kill -9 $$", "ended by signal 9 (Killed)"),
    "by itself": ("echo done", "done\n"),
}


@pytest.mark.parametrize(("command", "told"), ENDINGS.values(), ids=ENDINGS)
async def test_how_a_command_ended_is_told(house: House, command: str, told: str) -> None:
    """Whoever reads the last lines of a command learns how it ended where there is no exit code."""
    ended = await house.supervisor.run_once(house.admin(command, timeout_ms=500))
    assert ended.told == told


async def test_a_command_ends_with_its_main_process(house: House) -> None:
    """Output that a child holds open does not make the command last longer; the child is ended."""
    ended = await house.supervisor.run_once(house.admin("sleep 600 & echo $!"))
    assert ended.succeeded
    assert not lives(int(ended.output))


async def test_a_command_that_cannot_be_started_is_told(house: House) -> None:
    """A command that is not there fails with its reason."""
    ended = await house.supervisor.run_once(house.admin("bin/migrate", shell=False))
    assert ended == AdminExit(failure=f"{house.folder}/bin/migrate: No such file or directory")


async def test_a_cancelled_command_is_ended(house: House) -> None:
    """When the command is no longer wanted, its processes are gone as well."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.supervisor.run_once, house.admin("echo $$; sleep 600"))
        await house.until(lambda: bool(house.records))
        tasks.cancel_scope.cancel()
    pid = int(str(house.records[0]["message"]))
    assert procfs.process(pid) is None, "not even a zombie"
    assert not list((house.folder / "run" / "records").iterdir())


async def test_two_commands_at_once_do_not_disturb_each_other(house: House) -> None:
    """Commands that run at the same time keep their own output and their own folder."""
    ended: list[AdminExit] = []

    async def run(word: str) -> None:
        ended.append(await house.supervisor.run_once(house.admin(f"echo {word}; ls $TMPDIR; touch $TMPDIR/x")))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "one")
        tasks.start_soon(run, "two")
    assert sorted(one.output for one in ended) == ["one\n", "two\n"]


async def test_nothing_escapes_from_the_leaf_of_a_command(in_leaves: House) -> None:
    """At the timeout a daemon without session, parents and environment is ended too, and the leaf is gone."""
    forks = "env -i /bin/sh -c 'setsid sleep 600 & echo $!'; sleep 600"
    ended = await in_leaves.supervisor.run_once(in_leaves.admin(forks, timeout_ms=500))
    assert ended.timed_out
    assert not lives(int(ended.output))
    assert in_leaves.cgroup_root is not None
    assert not list(in_leaves.cgroup_root.glob("*/"))


async def test_a_command_has_limits_of_its_own(house: House) -> None:
    """They are kept as those of an instance; what cannot be kept is refused, or done without and told."""
    ended = await house.supervisor.run_once(house.admin("ulimit -n", limits=Limits(open_files=77)))
    assert ended.output == "77\n"
    ended = await house.supervisor.run_once(house.admin("ulimit -n", limits=Limits(tasks=7)))
    assert "cannot keep limits.tasks" in ended.failure
    ended = await house.supervisor.run_once(house.admin("echo ran", limits=Limits(tasks=7, best_effort=True)))
    assert (ended.output, ended.unkept) == ("ran\n", ("tasks",))
    assert ("runs without limits that this host cannot keep", {"limits": "tasks"}) in house.told
