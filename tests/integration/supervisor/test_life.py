"""Real processes under a supervisor: started, ended, restarted; nothing escapes and nothing is taken for dead."""

import os
import signal
import time
from pathlib import Path

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint
from msgspec import structs
from structlog.testing import capture_logs

from agent.linux import cgroup
from agent.model.process import HttpCheck, Probe, Probes, ProcessType, StopPolicy
from agent.model.process import RestartPolicy as Restart
from agent.supervisor.launchable import InstanceKey
from tests.integration.limits import few_fds, no_more_fds
from tests.integration.supervisor.conftest import QUICK, SHOP, SOON, TEST, House, Slot, app, lives, script, worker

pytestmark = pytest.mark.anyio
NEVER = Restart(policy="never")


def daemon_of(house: House) -> int:
    """The pid that the daemon has told."""
    (told,) = [str(message) for message in house.messages() if str(message).startswith("daemon")]
    return int(told.split()[1])


async def test_an_instance_sees_its_config_and_nothing_of_the_agents_world(house: House) -> None:
    """The environment of a process is its config and the agent's few words about itself, nothing more."""
    key = house.launch(worker("/usr/bin/env"), config={"COLOUR": "green"}, port=8080)
    await house.until(lambda: house.view().restarts > 0 and bool(house.messages()))
    seen = dict(str(message).split("=", 1) for message in house.messages())
    folder = house.folder / "run" / "i" / "shop.test.worker.1"
    assert seen == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "COLOUR": "green",
        "PORT": "8080", "ROLLWAY_APP": "shop", "ROLLWAY_ENVIRONMENT": "test", "ROLLWAY_RELEASE": "v1",
        "ROLLWAY_PROCESS": "worker", "ROLLWAY_INSTANCE": "worker.1",
        "ROLLWAY_DRAIN_FILE": str(folder / "drain"), "TMPDIR": str(folder / "tmp"),
        "NOTIFY_SOCKET": str(folder / "notify"),
    }  # fmt: skip
    await house.end(key)


async def test_what_ignores_its_signal_is_killed_after_the_grace(house: House) -> None:
    """An app that will not end is killed, with all that it started, when its grace is over."""
    stop = StopPolicy(linger_ms=0, grace_ms=200)
    key = house.launch(script("trap '' TERM; echo up; while :; do sleep 1; done", stop=stop))
    await house.until(lambda: "up" in house.messages() and house.view().state == "ready")
    pid = house.view().pid
    ended = await house.end(key)
    assert "outlived its grace" in house.texts()
    assert (await house.exit_of(pid))["how"] == "was ended by SIGKILL"
    assert (ended.pid, lives(pid)) == (None, False)


async def test_an_agent_without_descriptors_kills_as_soon_as_it_has_some(house: House) -> None:
    """Who is to be killed cannot be found without one: that is waited out, and does not end the agent."""
    stop = StopPolicy(linger_ms=0, grace_ms=200)
    key = house.launch(script("trap '' TERM; echo up; while :; do sleep 1; done", stop=stop))
    await house.until(lambda: "up" in house.messages() and house.view().state == "ready")
    pid = house.view().pid
    with capture_logs() as told, anyio.fail_after(20):
        with no_more_fds():
            house.supervisor.stop(key)
            while not told:
                await checkpoint()
            assert "outlived its grace" in house.texts()
        await house.state("stopped")
    assert "no descriptor is left" in told[0]["event"]
    assert not lives(pid)


async def test_what_is_written_while_there_are_no_descriptors_waits(house: House) -> None:
    """The first line of an app needs two: it is kept until they can be had, and is not lost."""
    there, said = house.folder / "there", house.folder / "said"
    house.launch(script(f"until [ -d {there} ]; do sleep 0.02; done; echo up; mkdir {said}; exec sleep 600"))
    await house.state("ready")
    with no_more_fds(), anyio.fail_after(10):
        there.mkdir()
        while not said.exists():
            await checkpoint()
        for _ in range(100):  # it has been met by then
            await checkpoint()
    await house.until(lambda: house.messages() == ["up"])


@pytest.mark.parametrize("descriptors", range(8))
async def test_an_agent_without_descriptors_starts_as_soon_as_it_has_some(house: House, descriptors: int) -> None:
    """Whatever cannot be opened for a start, it is told and tried again, and does not end the agent."""
    with few_fds(descriptors) if descriptors else no_more_fds():
        house.launch(script("echo up; exec sleep 600"))
        await house.state("exec_failed")
    assert "Too many open files" in house.view().detail
    await house.until(lambda: "up" in house.messages())
    await house.state("ready")


@pytest.mark.parametrize("words", ["", "--leave"], ids=["stopped", "left by its main process"])
async def test_a_daemon_does_not_escape(house: House, words: str) -> None:
    """A process that was forked twice away from its instance is gone when the instance is."""
    key = house.launch(worker(app("daemon.py", words), restart=NEVER))
    await house.until(lambda: any("daemon" in str(message) for message in house.messages()))
    await house.end(key)
    assert not lives(daemon_of(house))


async def test_a_leaf_of_its_own_ends_with_the_instance(tmp_path: Path) -> None:
    """Where the host has cgroups for it, the daemon is ended by its leaf, and the leaf is gone as well."""
    found = cgroup.detect()
    root = found / f"rollway-test-{os.getpid()}" if found else None
    house = House(tmp_path, root)
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.supervisor.run)
        key = house.launch(worker(app("daemon.py")))
        await house.until(lambda: any("daemon" in str(message) for message in house.messages()))
        assert root is None or daemon_of(house) in cgroup.pids(root / str(key))
        await house.end(key)
        tasks.cancel_scope.cancel()
    assert not lives(daemon_of(house))
    assert root is None or (not (root / str(key)).exists() and cgroup.remove(root))


async def test_a_crash_loop_is_flagged_and_goes_on(house: House) -> None:
    """An app that ends at once is started again and again, said to be in a crash loop, and never given up."""
    key = house.launch(worker("/bin/false"))
    await house.until(lambda: house.view().restarts >= 5)
    assert house.view().crash_looping
    assert "exited with code 1" in house.view().detail
    assert house.texts().count("is in a crash loop") == 1
    await house.end(key)


LEFT = {
    "a file in the place of its folder": 'rm -r "$f"; touch "$f"',
    "a link in the place of its folder": 'rm -r "$f"; ln -s / "$f"',
    "folders a thousand deep": 'cd "$TMPDIR"; mkdir -p $(printf "d/%.0s" $(seq 1500))',
    "a folder in the place of its notice": 'mkdir -p "$ROLLWAY_DRAIN_FILE/x"',
}


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT.keys())
async def test_whatever_an_app_makes_of_its_folder_it_starts_again(house: House, left: str) -> None:
    """Neither it nor the agent is stopped by what a process has left behind."""
    key = house.launch(worker(f"""bash -c 'f=$(dirname "$TMPDIR"); {left}; exit 7'"""))
    await house.until(lambda: house.view().restarts >= 2)
    assert "exited with code 7" in house.view().detail
    await house.end(key)


async def test_an_instance_that_runs_again_says_how_it_ended(house: House) -> None:
    """Long after the restart a person sees in `rollway ps` why there was one."""
    key = house.launch(worker("sleep 60"))
    first = await house.state("ready")
    assert (first.pid is not None, first.detail) == (True, "")
    os.kill(first.pid or 0, signal.SIGKILL)
    await house.until(lambda: house.view().restarts == 1 and house.view().state == "ready")
    assert house.view().detail == "restarted: was ended by SIGKILL"
    assert (await house.end(key)).detail == ""


async def test_a_stop_in_backoff_does_not_hang(house: House) -> None:
    """An instance that waits for its next try stops at once when it is told to."""
    key = house.launch(worker("/bin/false", restart=Restart(base_delay_ms=600_000, max_delay_ms=600_000)))
    await house.state("backoff")
    assert (await house.end(key)).restarts == 2


async def test_a_killed_process_is_replaced(house: House) -> None:
    """A process that somebody kills is there again at once, under another pid, and ready."""
    key = house.launch(worker("sleep 600"))
    pid = (await house.state("ready")).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await house.until(lambda: house.view().restarts == 1 and house.view().state == "ready")
    assert house.view().pid not in (None, pid)
    await house.end(key)


async def test_a_grandchild_with_stdout_open_does_not_hide_the_exit(house: House) -> None:
    """The end of the main process is seen though a process that it left still holds the output open."""
    house.launch(script("sleep 600 & echo left $!; kill -9 $$", restart=NEVER))
    ended = await house.state("stopped")
    (message,) = house.messages()
    assert ended.detail == "was ended by SIGKILL"
    assert not lives(int(str(message).split()[1]))


async def test_a_process_that_closes_its_output_costs_nothing(house: House) -> None:
    """Closed stdout and stderr do not make the agent spin."""
    before = time.process_time()
    house.launch(script("exec >&- 2>&-; sleep 1", restart=NEVER))
    await house.state("stopped")
    assert time.process_time() - before < 0.3


async def test_what_cannot_be_executed_is_told_with_its_reason(house: House) -> None:
    """A command that is not there is named with the system's reason, is no crash, and can be stopped."""
    key = house.launch(worker("no-such-program --serve"))
    failed = await house.state("exec_failed")
    assert failed.detail.startswith("no-such-program is not on PATH")
    assert failed.detail.endswith("No such file or directory")
    assert ("could not be started", {"errno": 2, "reason": failed.detail}) in house.told
    assert (failed.restarts, failed.crash_looping) == (0, False)
    await house.end(key)


async def test_a_command_that_cannot_be_read_is_told(house: House) -> None:
    """A quote without its end is a reason of its own, not a crash of the agent."""
    house.launch(worker("echo 'oops"))
    assert "cannot read the command" in (await house.state("exec_failed")).detail


async def test_tmpdir_is_empty_at_each_start(house: House) -> None:
    """What a process left in its TMPDIR is not there for the next one."""
    key = house.launch(script('ls "$TMPDIR"; echo counted; touch "$TMPDIR/left"'))
    await house.until(lambda: house.messages().count("counted") >= 2)
    assert set(house.messages()) == {"counted"}
    await house.end(key)


async def test_a_place_can_be_taken_again(house: House) -> None:
    """A stopped instance that was forgotten leaves its place to the next, and no file of its own."""
    key = house.launch(worker("sleep 600"))
    await house.state("ready")
    await house.end(key)
    assert not (house.folder / "run" / "i" / str(key)).exists()
    house.supervisor.forget(key)
    assert not list((house.folder / "run" / "records").iterdir())
    assert house.views() == ()
    house.launch(worker("sleep 600"))
    await house.state("ready")


async def test_launching_twice_launches_once(house: House) -> None:
    """Saying again that an instance is to run does not start a second process."""
    house.launch(worker("sleep 600"))
    pid = (await house.state("ready")).pid
    house.launch(worker("sleep 600"))
    assert house.view().pid == pid


async def test_a_disk_that_takes_nothing_keeps_nobody_from_running(house: House) -> None:
    """Without a record the instance runs all the same, and the agent's log says what that means, once."""
    records = house.folder / "run" / "records"
    records.parent.mkdir()
    records.touch()
    key = house.launch(worker("sleep 600"))
    pid = (await house.state("ready")).pid
    assert house.texts().count("cannot be recorded: a next agent would not know of it") == 1
    records.unlink()  # there is room again
    await house.until(lambda: "is on record again" in house.texts())
    assert msgspec.json.decode((records / f"{key}.json").read_bytes())["pid"] == pid
    await house.end(key)


def web(*words: object, stop: StopPolicy = SOON, probes: Probes | None = None, restart: Restart = QUICK) -> ProcessType:
    return structs.replace(worker(app("server.py", *words), stop=stop, restart=restart), probes=probes or Probes())


def probe(path: str, failures: int = 1) -> Probe:
    return Probe(check=HttpCheck(path=path), period_ms=100, timeout_ms=1_000, failures=failures)


async def test_a_probe_that_passes_by_a_redirect_is_told_of(house: House, slot: Slot) -> None:
    """Who is ready only because it redirects to another host is ready, and it is said once."""
    key = house.launch(web(probes=Probes(readiness=probe("/away"), liveness=probe("/live"))), **slot.given)
    await house.state("ready")
    told = "its readiness probe passes by a redirect"
    reason = {"reason": "/away answered 302: a redirect that is not followed"}
    assert [fields for text, fields in house.told if text == told] == [reason]
    (house.folder / "sick").touch()
    await house.until(lambda: house.view().restarts > 0)
    assert house.texts().count(told) == 1
    (house.folder / "sick").unlink()
    await house.end(key)


async def test_sockets_are_handed_over_by_number_and_by_name(house: House, slot: Slot) -> None:
    """A process finds its sockets as socket activation says, and in its command where it asks for the number."""
    told = "echo {fd} {port} $PORT $LISTEN_FDS $LISTEN_FDNAMES; [ $$ = $LISTEN_PID ] && readlink /proc/self/fd/3"
    house.launch(script(told), **slot.given)
    await house.until(lambda: len(house.messages()) >= 2)
    inode = os.fstat(slot.socket.fileno()).st_ino
    assert house.messages()[:2] == [f"3 {slot.port} {slot.port} 1 worker", f"socket:[{inode}]"]


async def test_a_listening_instance_is_ready_when_it_accepts(house: House, slot: Slot) -> None:
    """Without probes an instance is not ready as long as connections only lie in its queue."""
    house.launch(web("--accept-after", "go"), **slot.given)
    await house.until(lambda: "nobody accepts on slot worker.1" in house.view().detail)
    assert house.view().state == "starting"
    (house.folder / "go").touch()
    await house.state("ready")


@pytest.mark.parametrize("kind", ["startup", "readiness"])
async def test_where_an_instance_listens_instead_is_told(house: House, slot: Slot, kind: str) -> None:
    """An app that ignores its socket is told apart from a slow one: who listens where, instead."""
    house.launch(web("--elsewhere", probes=Probes(**{kind: probe("/ready", failures=600)})), **slot.given)
    await house.until(lambda: "nobody accepts" in house.view().detail)
    (told,) = [str(message) for message in house.messages()]
    place = f"pid {house.view().pid} listens on 127.0.0.1:{told.split()[-1]}"
    await house.until(lambda: f"nobody accepts on slot worker.1; {place}" in house.view().detail)
    assert house.view().state == "starting"


async def test_an_instance_that_never_starts_is_restarted(house: House, slot: Slot) -> None:
    """A startup probe that fails too often ends the process and starts another."""
    startup = Probe(check=HttpCheck(path="/ready"), period_ms=100, timeout_ms=100, failures=2)
    house.launch(web("--elsewhere", probes=Probes(startup=startup)), **slot.given)
    await house.until(lambda: house.view().restarts >= 1)
    assert "is restarted" in house.texts()


async def test_readiness_takes_out_and_lets_in_again(house: House, slot: Slot) -> None:
    """An instance that says it is busy is unready for as long as it says so, and keeps its process."""
    house.launch(web(probes=Probes(readiness=probe("/ready"))), **slot.given)
    pid = (await house.state("ready")).pid
    (house.folder / "busy").touch()
    assert "/ready answered 503" in (await house.state("unready")).detail
    (house.folder / "busy").unlink()
    assert (await house.state("ready")).pid == pid


async def test_liveness_restarts(house: House, slot: Slot) -> None:
    """An instance that is no longer alive, though it runs, is replaced and ready again."""
    house.launch(web(probes=Probes(readiness=probe("/ready"), liveness=probe("/live", failures=2))), **slot.given)
    pid = (await house.state("ready")).pid
    (house.folder / "sick").touch()
    await house.state("unready")
    (house.folder / "sick").unlink()
    await house.until(lambda: house.view().state == "ready" and house.view().pid != pid)
    assert house.view().restarts >= 1


async def test_a_drain_finishes_what_is_in_hand(house: House, slot: Slot) -> None:
    """A request that is under way when the drain begins is answered; the notice is seen; the end comes early."""
    key = house.launch(web(stop=StopPolicy(linger_ms=60_000, grace_ms=5_000)), **slot.given)
    await house.state("ready")
    with slot.connect() as client:
        client.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
        await house.until(lambda: "in hand" in house.messages())
        house.supervisor.stop(key)
        await house.until(lambda: "notice seen" in house.messages())
        assert house.view().state == "draining"
        await anyio.wait_readable(client)
        assert client.recv(4096).startswith(b"HTTP/1.0 200")
    await house.state("stopped")
    assert house.messages() == ["in hand", "notice seen", "answered", "told to end", "bye"]
    assert "outlived its grace" not in house.texts()


async def test_a_drain_whose_connections_cannot_be_seen_takes_its_whole_linger(house: House, slot: Slot) -> None:
    """Where the kernel does not say who is connected nothing ends early, nor does the agent."""
    key = house.launch(web(stop=StopPolicy(linger_ms=1_500, grace_ms=5_000)), **slot.given)
    await house.state("ready")
    with no_more_fds():
        house.supervisor.stop(key)
        await house.until(lambda: "its connections cannot be seen: it has its whole linger" in house.texts())
    draining = (await house.state("draining")).since
    stopped = (await house.state("stopped")).since
    assert stopped.boottime_ms - draining.boottime_ms >= 1_500
    assert house.messages()[-1] == "bye"


async def test_connections_that_nobody_took_are_closed_and_told(house: House, slot: Slot) -> None:
    """What still waits on the slot when its last process is gone is closed rather than left in silence, and counted."""
    house.launch(web("--elsewhere"), **slot.given)
    await house.until(lambda: bool(house.messages()))
    with slot.connect() as client:
        house.supervisor.stop(InstanceKey(SHOP, TEST, house.view().process, 1))
        await house.state("stopped")
        assert slot.closed >= 1
        await anyio.wait_readable(client)
        assert client.recv(1) == b""
    assert "stranded connections were closed" in house.texts()


async def test_a_stranger_on_the_port_that_it_binds_itself_is_named(house: House) -> None:
    """It is not started, so that nobody else answers for it, and starts by itself when the stranger is gone."""
    stranger = Slot()
    process = structs.replace(script("exec sleep 600"), bind="port", swap="stop-first")
    key = house.launch(process, addresses=(f"127.0.0.1:{stranger.port}",), port=stranger.port)
    detail = (await house.state("exec_failed")).detail
    assert f"127.0.0.1:{stranger.port} is in use by pid {os.getpid()} (" in detail
    stranger.socket.close()
    await house.state("ready")
    await house.end(key)
