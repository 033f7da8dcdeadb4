"""How each supervisor is told to keep a number of the same children running, as its own documentation has it.

None waits before it takes a child for started or starts it again, as far as that can be set; none has a log process but
those named so. What is measured is the start of all, each time in a fresh folder.
"""

import json
import os
import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.peers.setup import Peer

S6_SUPERVISE: Final = Path("/usr/bin/s6-supervise")
"""Where Debian's s6-svscan looks for it."""
_LONG_AGO_S: Final = 3_600


@dataclass(frozen=True)
class Command:
    """How a supervisor runs in the foreground, and the signal by which it ends with all its children."""

    words: list[str]
    env: dict[str, str] = field(default_factory=dict)
    stop: signal.Signals = signal.SIGTERM


def supervisord(peer: Peer, folder: Path, child: list[str], count: int) -> Command:
    (folder / "s.conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={folder}/pid\n"
        # It closes so many descriptors in each child: not more than it needs, its default at the least.
        f"minfds={max(1024, 4 * count + 100)}\n"
        f"[program:child]\ncommand={shlex.join(child)}\nnumprocs={count}\nprocess_name=%(process_num)d\n"
        f"startsecs=0\nautorestart=true\nredirect_stderr=true\n"
        f"stdout_logfile={folder}/%(process_num)d.log\nstdout_logfile_maxbytes=0\n"
    )
    return Command([str(peer.folder / "supervisord"), "-c", str(folder / "s.conf")])


def circus(peer: Peer, folder: Path, child: list[str], count: int) -> Command:
    ends = "".join(f"{name}=ipc://{folder}/{name}\n" for name in ("endpoint", "pubsub_endpoint"))
    (folder / "c.ini").write_text(
        f"[circus]\ncheck_delay=1\n{ends}[watcher:child]\ncmd={shlex.join(child)}\nnumprocesses={count}\nwarmup_delay=0\n"
        f"copy_env=true\nstdout_stream.class=FileStream\nstdout_stream.filename={folder}/out.log\n"
    )
    return Command([str(peer.folder / "circusd"), "--log-level", "error", str(folder / "c.ini")])


def runit(peer: Peer, folder: Path, child: list[str], count: int, logger: str = "") -> Command:
    services = _services(folder, child, count, logger and f"{peer.folder}/{logger}")
    # A folder that is younger than a second is looked at a second later.
    moment = services.stat().st_mtime - _LONG_AGO_S
    os.utime(services, (moment, moment))
    path = {"PATH": f"{peer.folder}:{os.environ['PATH']}"}
    return Command([str(peer.folder / "runsvdir"), "-P", str(services)], path, signal.SIGHUP)


def runit_svlogd(peer: Peer, folder: Path, child: list[str], count: int) -> Command:
    return runit(peer, folder, child, count, "svlogd -tt -b 65536")


def s6(peer: Peer, folder: Path, child: list[str], count: int) -> Command:
    services = _services(folder, child, count, "")
    libraries = next((peer.folder.parent / "lib").glob("*/libs6.so*")).parent
    env = {"PATH": f"{peer.folder}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(libraries)}
    words = [str(peer.folder / "s6-svscan"), "-c", str(2 * count + 100), str(services)]
    if not S6_SUPERVISE.exists():  # it is to be there for s6-svscan, and for nobody else
        over = f"mount -t overlay -o lowerdir={peer.folder}:{S6_SUPERVISE.parent} overlay {S6_SUPERVISE.parent}"
        words = ["unshare", "--mount", "sh", "-c", f'{over} && exec "$@"', "s6", *words]
    return Command(words, env)


def pm2(peer: Peer, folder: Path, child: list[str], count: int) -> Command:
    app = {
        "name": "child", "script": child[0], "args": child[1:], "interpreter": "none", "exec_mode": "fork",
        "instances": count, "restart_delay": 0, "out_file": str(folder / "out.log"), "error_file": "/dev/null",
        "merge_logs": True,
    }  # fmt: skip
    (folder / "e.json").write_text(json.dumps({"apps": [app]}))
    words = [str(peer.folder / "pm2-runtime"), "start", str(folder / "e.json")]
    return Command(words, {"PM2_HOME": str(folder / "home")}, signal.SIGINT)


def _services(folder: Path, child: list[str], count: int, logger: str) -> Path:
    """A folder of service folders, as runit and s6 both have it; each with a log service where a logger is given."""
    services = folder / "sv"
    for number in range(count):
        service = services / f"child{number}"
        commands = {service: shlex.join(child)}
        if logger:
            logs = folder / "logs" / str(number)
            logs.mkdir(parents=True)
            commands[service / "log"] = f"{logger} {logs}"
        for path, command in commands.items():
            path.mkdir(parents=True)
            (path / "run").write_text(f"#!/bin/sh\nexec {command}\n")
            (path / "run").chmod(0o755)
    return services


PEERS: Final[dict[str, Callable[[Peer, Path, list[str], int], Command]]] = {
    "runit": runit,
    "s6": s6,
    "supervisord": supervisord,
    "circus": circus,
    "pm2": pm2,
    "runit+svlogd": runit_svlogd,
}
