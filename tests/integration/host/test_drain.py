"""`rollway agent drain`: by the living agent and in the place of a dead one, on a shutdown and by hand."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import msgspec
import pytest
from msgspec import Struct
from msgspec.structs import replace

from agent.decisions.process.state import Ending, InstanceMachine, Terms
from agent.host import drained, orphans
from agent.linux import clock, procfs
from agent.linux.killtree import members
from agent.model.process import StopPolicy
from agent.model.roles import AgentSettings
from tests.integration.host.test_process import DEADLINE_S, Agent, agent, chosen, deployed, release_at
from tests.integration.host.verbs import rollway, write_settings

__all__ = ["chosen", "deployed"]


@pytest.fixture
def file(chosen: AgentSettings, tmp_path: Path) -> Path:
    return write_settings(chosen, tmp_path / "agent.toml")


@contextmanager
def killed_with_its_instances(chosen: AgentSettings) -> Iterator[Agent]:
    """An agent at whose end nothing is to be seen any more."""
    with agent(chosen) as started:
        yield started
    for event in started.seen:
        if event.get("event") == "started":
            with suppress(ProcessLookupError):
                os.kill(int(str(event["pid"])), signal.SIGKILL)


class Manager:
    """What a service manager hears."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def heard(self) -> list[bytes]:
        """All that has come."""
        found = []
        try:
            while True:
                found.append(self._socket.recv(4096))
        except BlockingIOError:
            return found


def test_a_drained_host_stays_drained_whatever_agent_is_started_until_it_is_told(
    chosen: AgentSettings, deployed: int, file: Path, tmp_path: Path
) -> None:
    """Drain ends when nothing runs and asks systemd for time; a next agent starts nothing; undrain brings all back."""
    manager = Manager(tmp_path / "notify")
    with agent(chosen) as first:
        first.until("ready")
        done = rollway("agent", "drain", "--config", file, NOTIFY_SOCKET=str(manager.path))
        assert done.stdout.splitlines()[0] in (
            "draining 1: shop.production.web.1",
            "draining 2: shop.production, shop.production.web.1",
        )
        assert done.stdout.splitlines()[-1] == "drained by the agent"
        assert {b"EXTEND_TIMEOUT_USEC=30000000", b"STATUS=drained"} <= set(b"\n".join(manager.heard()).split(b"\n"))
        with pytest.raises(ConnectionRefusedError):
            release_at(deployed)
        rollway("agent", "drain", "--config", file)
        first.process.kill()
        first.process.wait(DEADLINE_S)
    with killed_with_its_instances(chosen) as second:
        second.until("agent started")
        assert second.ask("/readyz") == (503, "host: drained: see `rollway agent undrain`\n")
        assert second.ask("/apps/shop/readyz") == (503, "draining\n")
        rollway("agent", "undrain", "--config", file)
        second.until("ready")
        assert release_at(deployed) == "v1"
        assert second.ask("/readyz")[0] == 200


def test_a_drain_with_a_dead_agent_drains_by_its_records(chosen: AgentSettings, deployed: int, file: Path) -> None:
    """After kill -9 of the agent the app gets its notice and its signal, and no agent starts it until undrain."""
    with agent(chosen) as first:
        pid = first.until("started")["pid"]
        first.until("ready")
        first.process.kill()
        first.process.wait(DEADLINE_S)
    assert isinstance(pid, int)
    assert procfs.start_time(pid) is not None
    done = rollway("agent", "drain", "--config", file)
    assert "no agent runs" in done.stderr
    assert done.stdout.splitlines() == ["draining 1: shop.production.web.1", "drained by the records"]
    with pytest.raises(ConnectionRefusedError):
        release_at(deployed)
    assert drained.is_there(Path(chosen.run_dir))
    assert rollway("agent", "undrain", "--config", file).stdout.endswith("the next agent starts what is assigned\n")
    with killed_with_its_instances(chosen) as second:
        second.until("ready")
        assert release_at(deployed) == "v1"


def test_a_host_that_cannot_be_marked_is_drained(chosen: AgentSettings, deployed: int, file: Path) -> None:
    """With a dead agent and a run folder that takes nothing it is said what that means, and everything ends."""
    with agent(chosen) as first:
        first.until("ready")
        first.process.kill()
        first.process.wait(DEADLINE_S)
    (Path(chosen.run_dir) / "drained").mkdir()
    done = rollway("agent", "drain", "--config", file)
    assert "the next agent will not know that this host is drained" in done.stderr
    assert done.stdout.splitlines()[-1] == "drained by the records"
    with pytest.raises(ConnectionRefusedError):
        release_at(deployed)


def test_a_drain_goes_on_when_its_agent_dies_in_the_middle(chosen: AgentSettings, deployed: int, file: Path) -> None:
    """Begun by the agent and ended in its place: nothing is left, exit 0."""
    with agent(chosen) as first:
        pid = first.until("started")["pid"]
        first.until("ready")
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGSTOP)  # its drain cannot end while the agent lives
        words = [sys.executable, "-m", "agent", "agent", "drain", "--config", str(file)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as drain:
            assert drain.stdout is not None
            assert drain.stdout.readline().startswith("draining ")
            first.process.kill()
            os.kill(pid, signal.SIGCONT)
            said = drain.stdout.read().splitlines()
        assert (drain.returncode, said[-1]) == (0, "drained by the records")
    with pytest.raises(ConnectionRefusedError):
        release_at(deployed)


def test_after_the_next_boot_everything_runs_again(chosen: AgentSettings, deployed: int) -> None:
    """The mark of a drain counts in the boot in which it was made, in no other."""
    run_dir = Path(chosen.run_dir)
    run_dir.mkdir(exist_ok=True)
    (run_dir / drained.NAME).write_bytes(msgspec.json.encode(drained.Mark("an earlier boot", 1)))
    with killed_with_its_instances(chosen) as started:
        started.until("ready")
        assert release_at(deployed) == "v1"


def test_where_no_agent_ever_was_there_is_nothing_to_drain(chosen: AgentSettings, tmp_path: Path) -> None:
    """A host that is shut down before it was set up is not held up."""
    file = write_settings(replace(chosen, state_dir=str(tmp_path / "nowhere")), tmp_path / "agent.toml")
    assert "nothing to drain" in rollway("agent", "drain", "--config", file).stdout


class Life(Struct):
    """How a process takes its end, and how its drain went."""

    script: str
    says: str
    """What it wrote until it ended."""
    by_sigkill: bool


LIVES = {
    "the notice is there before the signal, which comes once": Life(
        'trap "test -e $ROLLWAY_DRAIN_FILE && echo noticed; exit" TERM; echo up; while :; do read x <$0.fifo; done',
        "noticed\n",
        by_sigkill=False,
    ),
    "one that stays, and what it has started, is killed after its grace": Life(
        'trap "echo no" TERM; (trap "" TERM; setsid sleep 60) & echo up; while :; do read x <$0.fifo; done',
        "no\n",
        by_sigkill=True,
    ),
}


def told(pid: int) -> InstanceMachine:
    """What is on record of an instance whose grace has begun."""
    now, stop = clock.now(), StopPolicy(linger_ms=0, grace_ms=300)
    return InstanceMachine(
        terms=Terms(stop=stop), state="draining", since=now, launched=now, launch=1, pid=pid, started=True, ready=True,
        stop_asked=True, ending=Ending(phase="grace", until=now.after(stop.grace_ms), earliest=now),
    )  # fmt: skip


@contextmanager
def orphan(
    script: str, folder: Path, process: str = "web", after: tuple[str, ...] = (), *, is_told: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `script`, with the record that an agent wrote for it; told: after it had the stop signal."""
    key = f"shop.production.{process}.1"
    notice = folder / "run" / "i" / key / "drain"
    notice.parent.mkdir(parents=True)
    program = folder / process
    program.write_text(script)
    os.mkfifo(f"{program}.fifo")
    mark = f"ROLLWAY_DRAIN_FILE={notice}"
    environ = {"ROLLWAY_DRAIN_FILE": str(notice), "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        ["/bin/sh", program], env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        kept = {"after": after, "stop": msgspec.to_builtins(StopPolicy(linger_ms=0, grace_ms=300))}
        record = {
            "key": {"app": "shop", "environment": "production", "process": process, "slot": 1},
            "boot_id": clock.boot_id(),
            "mark": mark,
            "pid": running.pid,
            "start_time": procfs.start_time(running.pid),
            "instance": {"type": kept, "machine": msgspec.to_builtins(told(running.pid)) if is_told else {}},
        }
        records = folder / "run" / "records"
        records.mkdir(exist_ok=True)
        (records / f"{key}.json").write_bytes(msgspec.json.encode(record))
        yield running
        running.kill()


@pytest.mark.parametrize("life", LIVES.values(), ids=list(LIVES))
def test_each_instance_has_the_drain_that_its_agent_would_have_given_it(life: Life, tmp_path: Path) -> None:
    """Notice, signal to the main process, grace, SIGKILL to the whole tree; nothing is left, no record either."""
    told: list[tuple[str, ...]] = []
    with orphan(life.script, tmp_path) as process:
        found = orphans.find(tmp_path / "run")
        assert anyio.run(orphans.drain, found, tmp_path / "run", told.append) == ()
        assert members(found[0].tree) == []
        assert process.stdout is not None
        assert process.stdout.read() == life.says
        assert (process.wait(DEADLINE_S) == -signal.SIGKILL) is life.by_sigkill
    assert told == [("shop.production.web.1",), ()]
    assert list((tmp_path / "run" / "records").iterdir()) == []


def test_a_drain_that_had_begun_goes_on_where_it_was(tmp_path: Path) -> None:
    """What its agent had signalled gets no second signal, and no second grace."""
    script = 'trap "echo again" TERM; echo up; while :; do read x <$0.fifo; done'
    with orphan(script, tmp_path, is_told=True) as process:
        found = orphans.find(tmp_path / "run")
        assert anyio.run(orphans.drain, found, tmp_path / "run", lambda _names: None) == ()
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert process.wait(DEADLINE_S) == -signal.SIGKILL


def test_a_type_stops_before_those_that_it_needs(tmp_path: Path) -> None:
    """The order of starting, reversed, in the place of a dead agent too."""
    says = 'trap "echo $0 >>{}; exit" TERM; echo up; while :; do read x <$0.fifo; done'.format(tmp_path / "order")
    with orphan(says, tmp_path, "db"), orphan(says, tmp_path, "web", after=("db",)):
        found = orphans.find(tmp_path / "run")
        assert anyio.run(orphans.drain, found, tmp_path / "run", lambda _names: None) == ()
    assert [Path(line).name for line in (tmp_path / "order").read_text().splitlines()] == ["web", "db"]


RECORDS = {
    "half a record": b'{"key": "shop.production.web.1", "boot_id"',
    "another boot's": msgspec.json.encode({"key": "x", "boot_id": "1", "mark": "ROLLWAY_DRAIN_FILE=/x", "pid": 1}),
    "a mark that would match others": msgspec.json.encode({"boot_id": clock.boot_id(), "mark": "PATH=/bin", "pid": 1}),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=list(RECORDS))
def test_a_record_that_names_nothing_for_sure_ends_nothing(record: bytes, tmp_path: Path) -> None:
    """What cannot be read, or is of another boot, is left alone."""
    (tmp_path / "run" / "records").mkdir(parents=True)
    (tmp_path / "run" / "records" / "shop.production.web.1.json").write_bytes(record)
    assert orphans.find(tmp_path / "run") == []
