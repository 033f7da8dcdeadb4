"""`rollway dev` on a terminal and in a pipe: real processes, real sockets, and nothing left of either."""

import json
import os
import re
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from agent.cli import main as cli
from agent.errors import UsageError
from tests.integration.coordinator.fleet import free_port
from tests.integration.local.terminal import ESCAPES, Terminal, dev, is_gone

SERVER: Final = """
import http.server, json, os, signal, socket, threading

class Shows(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(dict(os.environ)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("", 0), Shows, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
print("drained", flush=True)
"""
IDLE: Final = "exec sleep 1000"
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a working tree: `rollway.toml` of process types given as TOML, and files beside it."""

    def made(config: str = "", files: dict[str, str] | None = None, **types: str) -> Path:
        text = 'app = "shop"\n' + "".join(f"[process.{name}]\n{body}\n" for name, body in types.items()) + config
        for name, content in {"rollway.toml": text, "server.py": SERVER, **(files or {})}.items():
            (tmp_path / name).write_text(content)
        return tmp_path

    return made


def web(port: int) -> str:
    return f'command = "python3 server.py"\nlisten = ["0.0.0.0:{port}"]'


def shell(line: str, more: str = "") -> str:
    return f"command = {json.dumps(line)}\nshell = true\n{more}"


def asked(port: int) -> dict[str, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        seen: dict[str, str] = json.load(answer)
    return seen


def pid_of(terminal: Terminal, instance: str) -> int:
    return int(terminal.until(f"{instance} started with pid").rpartition(" ")[2])


def test_a_working_tree_runs_as_its_release_would(make: Make) -> None:
    """The socket is handed over, .env and the shell are seen, it is said where it answers, Ctrl-C drains it."""
    port = free_port()
    env_file = f"# local\nCOLOUR=green\nSIZE='in the file'\nPORT={port + 1}\n"
    folder = make(web=web(port), files={".env": env_file})
    with dev(folder, env={"SIZE": "in the shell", "VIRTUAL_ENV": "/opt/app"}) as terminal:
        assert f"http://127.0.0.1:{port}" in terminal.until("web.1 is ready")
        pid, seen = pid_of(terminal, "web.1"), asked(port)
        run_dir = terminal.run_dir(pid)
        expected = {
            "COLOUR": "green", "SIZE": "in the shell", "VIRTUAL_ENV": "/opt/app", "PATH": os.environ["PATH"],
            "PORT": str(port), "LISTEN_FDS": "1", "LISTEN_PID": str(pid), "ROLLWAY_APP": "shop",
            "ROLLWAY_ENVIRONMENT": "dev", "ROLLWAY_RELEASE": "dev", "ROLLWAY_INSTANCE": "web.1",
            "PYTHONUNBUFFERED": "1", "FORCE_COLOR": "1",
        }  # fmt: skip
        assert {name: seen.get(name) for name in expected} == expected
        assert Path(f"/proc/{pid}/cwd").resolve() == folder.resolve()
        terminal.ctrl_c()
        assert terminal.end() == 0
        assert [line for line in terminal.lines if "web.1 " in line][-2:] == [
            "web.1   | drained", "rollway | web.1 exited with code 0",
        ]  # fmt: skip
        assert is_gone(run_dir)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_lines_in_a_pipe_are_the_apps_own(make: Make) -> None:
    """Each line whole behind its aligned name, JSON as it was written, what went to stderr told apart, no colours."""
    line = """i=0; while [ $i -lt 300 ]; do echo "{\\"n\\": $i}"; echo "warning $i" >&2; i=$((i+1)); done; """
    folder = make(a=shell(line + IDLE), worker=shell(line + "printf 'no newline'; " + "exit 0", NEVER))
    with dev(folder, pipe=True) as terminal:
        terminal.until("worker.1 exited with code 0; not started again (restart policy never)")
        terminal.until("a.1      : warning 299")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 0
    assert ESCAPES.search(terminal.output) is None
    for name in ("a.1     ", "worker.1"):
        mine = [line for line in terminal.output.splitlines() if line.startswith(name)]
        assert [line for line in mine if " | {" in line] == [f'{name} | {{"n": {n}}}' for n in range(300)]
        assert [line for line in mine if " : " in line] == [f"{name} : warning {n}" for n in range(300)]
    assert "worker.1 | no newline" in terminal.lines
    assert all(re.match(r"(a\.1     |worker\.1|rollway ) [|:] ", line) for line in terminal.lines)


NEVER: Final = 'restart = { policy = "never" }'


@pytest.mark.parametrize(
    ("words", "env", "coloured"),
    [([], {}, True), (["--no-color"], {}, False), ([], {"NO_COLOR": "1"}, False), ([], {"TERM": "dumb"}, False)],
    ids=["on a terminal", "asked for none", "NO_COLOR", "a dumb terminal"],
)
def test_colours_are_for_terminals(make: Make, words: list[str], env: dict[str, str], *, coloured: bool) -> None:
    """Each type has a colour of its own, where there is a terminal and nobody asked for none."""
    folder = make(a=shell(f"echo hello; {IDLE}"), b=shell(f"echo hello; {IDLE}"))
    with dev(folder, *words, env=env) as terminal:
        terminal.until("| hello", times=2)
        terminal.ctrl_c()
        assert terminal.end() == 0
    colours = {re.findall(r"\x1b\[(\d+)m[ab]", line)[0] for line in terminal.output.splitlines() if "hello" in line} \
        if coloured else set(ESCAPES.findall(terminal.output))  # fmt: skip
    assert len(colours) == (2 if coloured else 0)


def test_a_second_ctrl_c_kills(make: Make) -> None:
    """Who does not heed the first is ended by the second, with all that it started."""
    folder = make(stubborn=shell("trap '' TERM; sleep 1000 & echo up; while :; do wait; done", 'stop.grace = "60s"'))
    with dev(folder) as terminal:
        terminal.until("| up")
        run_dir = terminal.run_dir(pid_of(terminal, "stubborn.1"))
        terminal.ctrl_c()
        terminal.until("draining; once more to kill")
        terminal.ctrl_c()
        assert terminal.end() == 0
        terminal.until("stubborn.1 was ended by SIGKILL")
        assert is_gone(run_dir)


def test_it_leaves_nothing_when_it_is_killed(make: Make) -> None:
    """After kill -9 of it everything ends, by its signal or by SIGKILL; the socket and the folder are gone."""
    port = free_port()
    daemon = "setsid sleep 1000 & trap 'echo bye; exit' TERM; echo up; while :; do sleep 0.05; done"
    folder = make(web=web(port), polite=shell(f"({daemon}) | tee -a said"), worker=shell(f"{daemon} >>said"))
    with dev(folder) as terminal:
        terminal.until("web.1 is ready")
        terminal.until("polite.1 | up")
        run_dir = terminal.run_dir(pid_of(terminal, "worker.1"))
        terminal.process.kill()
        assert is_gone(run_dir)
        assert "bye" in (folder / "said").read_text()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_closed_terminal_ends_it(make: Make) -> None:
    """Whoever closes the window leaves nothing behind."""
    with dev(make(a=shell(IDLE))) as terminal:
        run_dir = terminal.run_dir(pid_of(terminal, "a.1"))
        terminal.process.send_signal(signal.SIGHUP)
        assert terminal.end() == 0
        assert is_gone(run_dir)


def test_a_terminal_that_takes_nothing_holds_up_no_end(make: Make) -> None:
    """With the output stopped and a flood before it, Ctrl-C still ends everything."""
    with dev(make(flood="command = 'yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'")) as terminal:
        run_dir = terminal.run_dir(pid_of(terminal, "flood.1"))
        terminal.ctrl_c()
        assert terminal.process.wait(20) == 0
        assert is_gone(run_dir)


def test_an_address_in_use_is_refused_by_name(make: Make) -> None:
    """Nothing is started, and it is said who listens there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        folder = make(first=shell("touch started"), web=web(port))
        with dev(folder, pipe=True) as terminal:
            assert terminal.end() == 4
    assert f"cannot listen on 127.0.0.1:{port}: pid {os.getpid()} " in terminal.output
    assert not (folder / "started").exists()


def test_missing_config_is_named_before_anything_starts(make: Make) -> None:
    """All required keys without a value are named at once; one in the shell counts."""
    keys = "".join(f"[config.{key}]\nrequired = true\n" for key in ("URL", "TOKEN", "MODE"))
    folder = make(keys, a=shell("touch started"), files={"other.env": "URL=here\n"})
    with dev(folder, env={"MODE": "x"}, pipe=True) as terminal:
        assert terminal.end() == 2
    assert "URL, TOKEN are required and have no value" in terminal.output
    with dev(folder, "-e", "other.env", env={"MODE": "x"}, pipe=True) as terminal:
        assert terminal.end() == 2
    assert "TOKEN is required and has no value" in terminal.output
    assert not (folder / "started").exists()


def test_a_crash_is_said_and_the_process_comes_back(make: Make) -> None:
    """With its code or its signal, first at once, then later and later; others run on."""
    folder = make(a=shell("echo up; [ -e killed ] && exit 3; touch killed; kill -KILL $$"), b=shell(IDLE))
    with dev(folder, pipe=True) as terminal:
        terminal.until("a.1 was ended by SIGKILL; starts again")
        terminal.until("a.1 exited with code 3; starts again after ")
        terminal.until("| up", times=3)
        assert Path(f"/proc/{pid_of(terminal, 'b.1')}").exists()
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0


def test_a_crash_ends_all_where_that_is_asked_for(make: Make) -> None:
    """--exit-on-crash does as foreman does, and the exit code says so."""
    with dev(make(a=shell("exit 3"), b=shell(f"echo up; {IDLE}")), "--exit-on-crash", pipe=True) as terminal:
        assert terminal.end() == 1
    assert "b.1 was ended by SIGTERM" in terminal.output
    assert "rollway: a.1 exited with code 3" in terminal.output


def test_what_cannot_be_started_ends_it(make: Make) -> None:
    """A command that is not there is no crash loop: it is named, everything else is ended, exit code 1."""
    with dev(make(a="command = 'no-such-program --now'", b=shell(IDLE)), pipe=True) as terminal:
        assert terminal.end() == 1
    assert "cannot start a.1: no-such-program is not on PATH" in terminal.output


def test_it_ends_with_its_last_process(make: Make) -> None:
    """What runs once and ends well ends it well; otherwise it is a failure."""
    once = make(a=shell("echo done", NEVER), b=shell("echo done", 'restart = { policy = "on-failure" }'))
    with dev(once, pipe=True) as terminal:
        assert terminal.end() == 0
    with dev(make(a=shell("exit 4", NEVER)), pipe=True) as terminal:
        assert terminal.end() == 1


def test_types_start_and_end_in_their_order(make: Make) -> None:
    """A type begins when those before it are ready, and ends before them."""
    port = free_port()
    slow_to_end = "trap 'sleep 1.5; exit' TERM; echo up; while :; do sleep 0.05; done"
    folder = make(a=shell(slow_to_end, 'after = ["web"]'), web=web(port))
    with dev(folder, pipe=True) as terminal:
        terminal.until("a.1     | up")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    told = [line.removeprefix("rollway | ") for line in terminal.lines if line.startswith("rollway | ")]
    order = [" ".join(words.split()[:2]) for words in told]
    assert order == [
        "a waits",
        "web.1 started",
        "web.1 is",
        "a.1 started",
        "draining; once",
        "a.1 exited",
        "web.1 exited",
    ]


def test_counts_and_types_are_chosen(make: Make) -> None:
    """Only the types that are named run, as many as is said; each instance answers for itself."""
    port = free_port()
    folder = make(web=web(port), other=shell(IDLE))
    with dev(folder, "web", "-c", "web=2", pipe=True) as terminal:
        terminal.until("web.1 is ready")
        terminal.until("web.2 is ready")
        assert asked(port)["ROLLWAY_INSTANCE"] in ("web.1", "web.2")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    assert "other" not in terminal.output


def test_a_procfile_runs_as_foreman_runs_it(tmp_path: Path) -> None:
    """`web` binds $PORT itself, which .env may set; the release command is not run, and that is said."""
    port = free_port()
    (tmp_path / "Procfile.dev").write_text(
        "web: exec python3 -m http.server $PORT --bind 127.0.0.1\nrelease: touch released\n"
    )
    (tmp_path / ".env").write_text(f"PORT={port}\n")
    with dev(tmp_path, "-f", "Procfile.dev", pipe=True) as terminal:
        terminal.until(f"web.1 is ready, http://127.0.0.1:{port}")
        terminal.until("the release command is not run")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    assert not (tmp_path / "released").exists()


def test_who_listens_elsewhere_is_told_why_nobody_answers(make: Make) -> None:
    """A server that binds an address of its own is found out, by its number and place."""
    port, other = free_port(), free_port()
    folder = make(web=f'command = "python3 -m http.server {other} --bind 127.0.0.1"\nlisten = ["127.0.0.1:{port}"]')
    with dev(folder, pipe=True) as terminal:
        told = terminal.until("web.1 is not ready yet")
        assert f"nobody accepts on slot web.1; pid {pid_of(terminal, 'web.1')} listens on 127.0.0.1:{other}" in told
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0


def test_the_release_command_runs_where_that_is_asked_for(make: Make) -> None:
    """Before anything starts, in the same environment; where it fails, or Ctrl-C ends it, nothing starts."""
    command = json.dumps("sh -c 'echo $COLOUR; [ -e ok ] || exit 9; [ -e slow ] && exec sleep 1000; touch migrated'")
    folder = make(f"[release]\ncommand = {command}\n", a=shell(f"[ -e migrated ] && echo up; {IDLE}"))
    with dev(folder, "--release", env={"COLOUR": "green"}, pipe=True) as terminal:
        assert terminal.end() == 1
    assert "release.1 | green" in terminal.lines
    assert "rollway: the release command failed: exited with code 9" in terminal.lines
    assert "a.1" not in terminal.output
    (folder / "ok").touch()
    with dev(folder, "--release", pipe=True) as terminal:
        terminal.until("a.1       | up")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    (folder / "slow").touch()
    with dev(folder, "--release", env={"COLOUR": "blue"}, pipe=True) as terminal:
        terminal.until("| blue")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    assert "a.1 started" not in terminal.output


WRONG: Final = {
    "an unknown type": (["nosuch"], "shop has no process type 'nosuch'"),
    "an unknown type with a count": (["-c", "nosuch=2"], "shop has no process type 'nosuch'"),
    "a count that is none": (["-c", "a"], "cannot read the count 'a'"),
    "no env file": (["-e", "nosuch.env"], "cannot read nosuch.env"),
    "a port for nobody": (["-p", "8080"], "nobody can listen on port 8080"),
    "no address": (["--host", "localhost"], "cannot listen on 'localhost'"),
    "no release command": (["--release"], "shop has no release command"),
    "no folder": (["--dir", "nosuch"], "nosuch is no folder"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=list(WRONG))
def test_wrong_words_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    """Before anything starts, and with what to do instead."""
    monkeypatch.chdir(make(a=shell("touch started")))
    with pytest.raises(UsageError, match=re.escape(said)) as refused:
        cli.run(["dev", *words])
    assert refused.value.what_to_do
    assert not Path("started").exists()
