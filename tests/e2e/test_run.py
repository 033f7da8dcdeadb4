"""`rollway run` as its users have it: a command on a host, through coordinator and link, bytes and ends exact."""

import fcntl
import filecmp
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import psutil
import pytest

from tests.e2e.fleet import Fleet, Json, fleet, rollway_command, wait_for
from tests.e2e.repositories import repository
from tests.e2e.test_lives import APPS, deploy
from tests.integration.local.terminal import Terminal, rollway
from tests.integration.supervisor.conftest import lives

MIB = 1 << 20
WITNESS = f"{sys.executable} -P witness.py".split()
DEADLINE_S = 30


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two hosts with an app that has config."""
    folder = tmp_path_factory.mktemp("run")
    settings = 'app = "shop"\n[process.worker]\ncommand = "sleep 100000"\n[process.worker.stop]\ngrace = "1s"\n'
    files = {"rollway.toml": settings, "witness.py": (APPS / "witness.py").read_text()}
    source = repository(folder / "r", {"v1": files})
    with fleet(folder, hosts=2) as started:
        started.rollway("run", "shop", "local", "--", "true", code=5)
        started.rollway("build", str(source), "--ref", "v1")
        assert "no release of shop runs" in started.rollway("run", "shop", "local", "--", "true", code=4).stderr
        started.rollway("config", "set", "shop", "local", "COLOUR=green")
        deploy(started, "shop", source, "v1")
        yield started


def environment(one: Fleet) -> dict[str, str]:
    return {**os.environ, "ROLLWAY_CONFIG": str(one.folder / "up" / "client.toml"), "TERM": "xterm"}


def run(one: Fleet, *words: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = rollway_command("run", "shop", "local", *words)
    return subprocess.run(
        command, input=data, capture_output=True, env=environment(one), check=False, timeout=DEADLINE_S
    )


def heed_keys() -> None:
    """Though whoever started the tests ignores them, as a shell does for what it starts in the background."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def begun(one: Fleet, *words: str, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """One that goes on; killed at the end."""
    process = subprocess.Popen(
        rollway_command("run", "shop", "local", *words),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(one),
        preexec_fn=heed_keys,  # noqa: PLW1509 - no thread of ours runs by then
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(stream: IO[bytes] | None) -> str:
    assert stream is not None
    return stream.readline().decode().strip()


def pid_of(process: subprocess.Popen[bytes]) -> int:
    """Of the witness, by its first word."""
    return int(line(process.stdout).split()[1])


def wait_gone(pid: int) -> None:
    wait_for(f"{pid} is gone", lambda: not lives(pid))


@contextmanager
def on_terminal(one: Fleet, *words: str) -> Iterator[tuple[Terminal, int]]:
    """On a terminal of 33 lines; with a descriptor of it."""
    with rollway(one.folder, "run", "shop", "local", "-it", *words, env=environment(one)) as terminal:
        yield terminal, terminal._fd


def mode(fd: int) -> list[object]:
    return termios.tcgetattr(fd)


def test_a_command_runs_as_the_release_does(one: Fleet) -> None:
    """Its folder, config and words are the release's and its own; both outputs stay apart, its exit code is ours."""
    said = run(
        one,
        "--", "sh", "-c",
        'pwd; echo $COLOUR $ROLLWAY_RELEASE $ROLLWAY_PROCESS "$TERM"; printf "<%s>" "$@"; echo oops >&2; exit 7',
        "sh", "{fd}", "", "a  b", "*", "--json",
    )  # fmt: skip
    folder, rest = said.stdout.decode().split("\n", 1)
    (worker,) = [row for row in one.rows("ps", "shop", "local") if row["host"] == "h1"]
    assert folder == str(Path(f"/proc/{worker['pid']}/cwd").readlink())
    assert rest == "green v1 run \n<{fd}><><a  b><*><--json>"
    assert (said.stderr, said.returncode) == (b"oops\n", 7)


ENDS = {
    "by a signal": (("--", "sh", "-c", "kill -9 $$"), 137, ""),
    "with the highest code": (("--", "sh", "-c", "exit 255"), 255, ""),
    "before it begins, for want of it": (("--", "bin/nope"), 127, "bin/nope: No such file or directory"),
    "before it begins, for it is no program": (("--", "./rollway.toml"), 126, "Permission denied"),
    "before it begins, for no host has that name": (("--host", "h9", "--", "true"), 5, "local has no host h9"),
    "before it begins, for no type has that name": (("--like", "web", "--", "true"), 5, "no process type web"),
    "before it begins, for there is no terminal here": (("-it", "--", "true"), 2, "standard input is none"),
}


@pytest.mark.parametrize(("words", "code", "told"), ENDS.values(), ids=ENDS)
def test_how_it_ends_is_how_we_end(one: Fleet, words: tuple[str, ...], code: int, told: str) -> None:
    """Whatever the command's end is, it is the exit code; what is not the command's own is said by `rollway:`."""
    said = run(one, *words)
    assert (said.returncode, said.stdout) == (code, b"")
    assert said.stderr.decode().startswith("rollway: " if told else "")
    assert told in said.stderr.decode()


def test_a_hundred_megabytes_pass_exactly_and_nobody_keeps_them(one: Fleet, tmp_path: Path) -> None:
    """Through a `cat` and back, byte by byte; neither caller nor coordinator nor agent grows with it."""
    data = os.urandom(MIB + 1)
    with (tmp_path / "in").open("wb") as source:
        for _ in range(100):
            source.write(data)
    roles = [*one.pids("coordinator"), *one.pids("agent")]
    before = {pid: psutil.Process(pid).memory_info().rss for pid in roles}
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        command = rollway_command("run", "shop", "local", "-i", "--", "sh", "-c", "cat; exec sleep 600")
        process = subprocess.Popen(command, stdin=source, stdout=target, env=environment(one))
        wait_for("all is there", lambda: (tmp_path / "out").stat().st_size == 100 * len(data), DEADLINE_S)
        grown = {pid: (peak(pid) - rss) // MIB for pid, rss in {**before, process.pid: 0}.items()}
        process.terminate()
        assert process.wait(DEADLINE_S) == 128 + signal.SIGTERM
    assert filecmp.cmp(tmp_path / "in", tmp_path / "out", shallow=False)
    assert grown.pop(process.pid) < 100
    assert max(grown.values()) < 48, grown


def peak(pid: int) -> int:
    status = dict(entry.split(":\t", 1) for entry in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def test_input_has_an_end_and_without_i_there_is_none(one: Fleet) -> None:
    """The command reads the end of what is given, of nothing too; who does not read leaves its pipe as a pipe does."""
    assert run(one, "-i", "--", "sh", "-c", "cat; echo; echo end", data=b"a\0b").stdout == b"a\0b\nend\n"
    assert run(one, "-i", "--", "wc", "-c", data=b"").stdout == b"0\n"
    assert run(one, "--", "wc", "-c", data=b"not for it").stdout == b"0\n"
    said = run(one, "-i", "--", "head", "-c", "3", data=b"x" * (8 * MIB))
    assert (said.returncode, said.stdout) == (0, b"xxx")


def test_whoever_holds_the_output_does_not_hold_it_up(one: Fleet) -> None:
    """A process that the command leaves behind has a moment for its last words, and is ended."""
    said = run(one, "--", "sh", "-c", "(sleep 0.1; echo late) & sleep 600 & echo $!")
    pid, late = said.stdout.decode().splitlines()
    assert (said.returncode, late) == (0, "late")
    assert not lives(int(pid))


def test_who_reads_nothing_slows_the_command_and_signals_pass_by(one: Fleet) -> None:
    """A writer without end waits for its reader; what we get by SIGTERM it gets at once, and nothing said is lost."""
    script = 'trap "echo bye >&2; exit 3" TERM; echo $$ >&2; while :; do echo 0123456789; done'
    with begun(one, "--", "bash", "-c", script) as process:
        pid = int(line(process.stderr))
        seen: list[float] = []

        def waits() -> bool:
            seen.append(psutil.Process(pid).cpu_times().user)
            return len(seen) > 5 and len(set(seen[-5:])) == 1

        wait_for("it waits for its reader", waits)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 3
    assert err.endswith(b"bye\n")
    assert set(out.splitlines()) == {b"0123456789"}
    assert out.endswith(b"\n")


def test_ctrl_c_reaches_who_does_not_read(one: Fleet) -> None:
    """Input that nobody takes is not in the way of a signal."""
    with begun(one, "-i", "--", "sh", "-c", "echo begun; exec sleep 600", stdin=subprocess.PIPE) as process:
        assert line(process.stdout) == "begun"
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        wait_for("no more is taken", lambda: not fill(process.stdin))
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130


def fill(pipe: IO[bytes] | None) -> bool:
    assert pipe is not None
    try:
        return os.write(pipe.fileno(), b"x" * MIB) > 0
    except BlockingIOError:
        return False


def test_signals_are_the_commands_and_the_third_of_a_kind_is_ours(one: Fleet) -> None:
    """Each is passed on; a command that heeds none is left by the third, and ended for that."""
    with begun(one, "--", *WITNESS, "SIGTERM") as process:
        pid = pid_of(process)
        process.send_signal(signal.SIGQUIT)
        assert line(process.stdout) == "got SIGQUIT"
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            assert line(process.stdout) == "got SIGINT"
        assert "once more ends it" in line(process.stderr)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
        wait_gone(pid)


def test_it_ends_when_its_caller_is_killed(one: Fleet) -> None:
    """Nothing goes on for somebody who is not there any more; `ps` shows it as long as it does."""
    with begun(one, "--host", "h2", "--", *WITNESS, "SIGTERM") as process:
        pid = pid_of(process)
        shown = [row for row in one.rows("ps", "shop", "local") if row["process"] == "run"]
        assert [(row["host"], row["pid"], row["release"]) for row in shown] == [("h2", pid, "v1")]
        process.kill()
        wait_gone(pid)
        wait_for("it is not shown", lambda: not [r for r in one.rows("ps", "shop", "local") if r["process"] == "run"])


ROLES = {
    "the agent is killed": ("agent", "SIGKILL", "nothing", "the connection to h1 was lost"),
    "the agent ends": ("agent", "SIGTERM", "SIGTERM", "the agent of h1 ended"),
    "the coordinator ends": ("coordinator", "SIGTERM", "SIGTERM", "the coordinator has stopped"),
}


@pytest.mark.parametrize(("role", "number", "heeded", "told"), ROLES.values(), ids=ROLES)
def test_a_killed_role_ends_it_and_that_is_said(one: Fleet, role: str, number: str, heeded: str, told: str) -> None:
    """Who watches it learns within moments that it is lost; a next agent ends it, though it heeds nothing."""
    with begun(one, "--", *WITNESS, heeded) as process:
        pid = pid_of(process)
        for victim in one.pids(role):
            os.kill(victim, signal.Signals[number])
        assert process.wait(DEADLINE_S) == 6
        said = line(process.stderr)
        assert said.startswith(f"rollway: {told}"), said
        wait_gone(pid)
    wait_for("both hosts are back", lambda: healthy(one))


def healthy(one: Fleet) -> bool:
    try:
        hosts = one.json("status")["hosts"]
    except AssertionError:
        return False
    there = [host for host in cast("list[Json]", hosts) if host["connected"]]
    return len(there) == len(one.rows("ps", "shop")) == 2


def test_a_host_that_is_drained_ends_it(one: Fleet) -> None:
    """Who watches it is told why; another host takes the next, and the drained one says that it does not."""
    file = str(one.folder / "up" / "hosts" / "h1" / "agent.toml")
    with begun(one, "--", "sh", "-c", 'trap "exit 0" TERM; echo begun; while :; do sleep 0.1; done') as process:
        assert line(process.stdout) == "begun"
        one.rollway("agent", "drain", "--config", file)
        assert process.wait(DEADLINE_S) == 1
        assert process.stderr is not None
        assert b"rollway: the command was ended: the host is drained\n" in process.stderr.read()
    assert run(one, "--", "sh", "-c", "echo $ROLLWAY_DRAIN_FILE").stdout.count(b"/h2/") == 1
    refused = run(one, "--host", "h1", "--", "true")
    assert (refused.returncode, "the host is drained" in refused.stderr.decode()) == (4, True)
    one.rollway("agent", "undrain", "--config", file)
    wait_for("it is back", lambda: run(one, "--host", "h1", "--", "true").returncode == 0)


def test_a_terminal_is_the_commands_own(one: Fleet) -> None:
    """It leads its session on it and knows its size, now and later; keys are its own; ours is as before afterwards."""
    with on_terminal(one, "--", *WITNESS) as (terminal, fd):
        before = mode(fd)
        terminal.until("terminals [True, True, True] leads True")
        terminal.until("size 24x80")
        terminal.until("foreground True True")
        assert mode(fd) != before
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        terminal.until("size 33x101")
        terminal.ctrl_c()
        terminal.until("got SIGINT")
        terminal.press(b"\x1c")
        terminal.until("got SIGQUIT")
        terminal.press(b"\r~.")
        assert terminal.end() == 129
        assert mode(fd) == before
        assert "rollway: on h1, in v1" in terminal.output


def test_a_shell_on_a_terminal(one: Fleet) -> None:
    """As at home: it echoes, Ctrl-C ends what runs in it, and its exit code is ours."""
    with on_terminal(one, "--", "bash", "--norc", "-i") as (terminal, _):
        terminal.until("bash-")
        terminal.press(b"echo si''x; sleep 600\r")
        terminal.until("six")
        terminal.ctrl_c()
        terminal.until("bash-", 2)
        terminal.press(b"echo $((40+2)); tty; exit 5\r")
        terminal.until("42")
        terminal.until("/dev/pts/")
        assert terminal.end() == 5


@pytest.mark.parametrize("ends", ["coordinator", "SIGTERM", "SIGHUP"])
def test_our_terminal_is_as_before_however_it_ends(one: Fleet, ends: str) -> None:
    """Also when we are asked to end, or the coordinator is killed; and the command is ended as one that is hung up."""
    with on_terminal(one, "--", *WITNESS, "SIGHUP") as (terminal, fd):
        before = mode(fd)
        pid = int(terminal.until("pid ").split()[1])
        assert mode(fd) != before
        if ends == "coordinator":
            os.kill(one.pids("coordinator")[0], signal.SIGKILL)
        else:
            terminal.process.send_signal(signal.Signals[ends])
        assert terminal.end() == (6 if ends == "coordinator" else 128 + signal.Signals[ends])
        assert mode(fd) == before
        assert ends != "coordinator" or "rollway: the connection to the coordinator was lost" in terminal.output
        wait_gone(pid)
    wait_for("both hosts are back", lambda: healthy(one))
