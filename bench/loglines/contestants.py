"""How each supervisor is started with one program, and where its lines come out: each in the way that it is meant for.

Rollway is the whole agent, as its unit starts it: its environment, its assignment from its state, no coordinator; the
lines are JSON records on its stdout, which is a pipe. The others write files, as they do, on the same file system.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench.peers import rollway as agent
from bench.peers.machine import commit
from bench.peers.setup import Peer

FLOOR: Final = Path(__file__).parent / "floor.py"
APP: Final = "bench"


@dataclass(frozen=True)
class Contestant:
    """`command` runs in the foreground. `files` lists its logs, oldest first; without it they come on its stdout."""

    name: str
    version: str
    sink: str
    command: list[str]
    env: dict[str, str]
    files: Callable[[], list[Path]] | None = None
    stop_by_interrupt: bool = False


def supervisord(folder: Path, peer: Peer, words: list[str]) -> Contestant:
    log = folder / "out.log"
    (folder / "s.conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={folder}/pid\n"
        f"[program:writer]\ncommand={shlex.join(words)}\nstartsecs=0\nredirect_stderr=true\n"
        f"stdout_logfile={log}\nstdout_logfile_maxbytes=0\n"
    )
    command = [str(peer.folder / "supervisord"), "-c", str(folder / "s.conf")]
    return Contestant("supervisord", peer.version, "raw to a file", command, {}, lambda: [log])


def circus(folder: Path, peer: Peer, words: list[str]) -> Contestant:
    log = folder / "out.log"
    ends = "".join(f"{name}=ipc://{folder}/{name}\n" for name in ("endpoint", "pubsub_endpoint"))
    (folder / "c.ini").write_text(
        f"[circus]\n{ends}[watcher:writer]\ncmd={shlex.join(words)}\nnumprocesses=1\ncopy_env=true\n"
        f"stdout_stream.class=FileStream\nstdout_stream.filename={log}\n"
    )
    command = [str(peer.folder / "circusd"), "--log-level", "error", str(folder / "c.ini")]
    return Contestant("circus", peer.version, "FileStream", command, {}, lambda: [log])


def svlogd(folder: Path, peer: Peer, words: list[str]) -> Contestant:
    logs = _services(folder, words, f"{peer.folder}/svlogd -tt -b 65536")
    (logs / "config").write_text("s268435455\nn100\n")
    path = {"PATH": f"{peer.folder}:{os.environ['PATH']}"}
    command = [str(peer.folder / "runsv"), str(folder / "sv" / "writer")]
    return Contestant("svlogd", peer.version, "files, time stamps", command, path, lambda: _rotated(logs))


def s6_log(folder: Path, peer: Peer, words: list[str]) -> Contestant:
    logs = _services(folder, words, f"{peer.folder}/s6-log n100 s268435455 T")
    libraries = next((peer.folder.parent / "lib").glob("*/libs6.so*")).parent
    env = {"PATH": f"{peer.folder}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(libraries)}
    # As s6-svscan does it, whose path to s6-supervise is fixed: two of these with a pipe in between.
    pair = (shlex.join(["s6-supervise", str(service)]) for service in (folder / "sv/writer", folder / "sv/writer/log"))
    command = ["/bin/sh", "-c", " | ".join(pair)]
    return Contestant("s6-log", peer.version, "files, time stamps", command, env, lambda: _rotated(logs))


def pm2(folder: Path, peer: Peer, words: list[str], log_type: str = "") -> Contestant:
    log, name, sink = folder / "out.log", "pm2", "raw to a file"
    if log_type:
        # A record is what node read at once: the line at its end goes on in the next one, and is counted as lost.
        name, sink = f"pm2-{log_type}", "JSON to a file, a record a chunk"
    app = {
        "name": "writer", "script": words[0], "args": words[1:], "interpreter": "none", "log_type": log_type,
        "out_file": str(log), "error_file": "/dev/null", "merge_logs": True,
    }  # fmt: skip
    (folder / "e.json").write_text(json.dumps({"apps": [app]}))
    command = [str(peer.folder / "pm2-runtime"), "start", str(folder / "e.json")]
    return Contestant(name, peer.version, sink, command, {"PM2_HOME": str(folder / "home")}, lambda: [log])


PEERS: Final[dict[str, Callable[[Path, Peer, list[str]], Contestant]]] = {
    "supervisord": supervisord,
    "circus": circus,
    "svlogd": svlogd,
    "s6-log": s6_log,
    "pm2": pm2,
    "pm2-json": partial(pm2, log_type="json"),
}

PACKAGES: Final = {name: name for name in PEERS} | {"svlogd": "runit", "s6-log": "s6", "pm2-json": "pm2"}
"""Of which package each is, as `peers/setup.py` has them."""


def _services(folder: Path, words: list[str], logger: str) -> Path:
    """A service folder with a log service, as runit and s6 both have it; gives where the logs lie."""
    logs, service = folder / "logs", folder / "sv" / "writer"
    logs.mkdir()
    (service / "log").mkdir(parents=True)
    for path, command in ((service, shlex.join(words)), (service / "log", f"{logger} {logs}")):
        (path / "run").write_text(f"#!/bin/sh\nexec {command}\n")
        (path / "run").chmod(0o755)
    return logs


def _rotated(logs: Path) -> list[Path]:
    return [*sorted(logs.glob("@*")), *logs.glob("current")]


@contextmanager
def rollway(folder: Path, words: list[str], net: str | None) -> Iterator[Contestant]:
    """A host to which a coordinator has assigned the program; both have ended, the host has its assignment."""
    settings = f"[process.writer]\ncommand = {json.dumps(shlex.join(words))}\n"
    with agent.assigned(folder, {APP: settings}, net) as config:
        env = agent.environment()
        yield Contestant("rollway", commit(), "JSON to a pipe", agent.command(config), env, stop_by_interrupt=True)


def floor(words: list[str]) -> Contestant:
    """The physical limit of Rollway's way: `floor.py` says of what."""
    command = [sys.executable, "-P", str(FLOOR)]
    # Its own words would name it as the program.
    env = {"PROGRAM": shlex.join(words)} | agent.environment_of_the_unit()
    return Contestant("floor", "the system calls alone", "unread, to a pipe", command, env)
