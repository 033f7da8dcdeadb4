"""The agent, killed by itself with SIGKILL right after an effect that it has never died after before.

`$MORTAL/armed` lets it die; `$MORTAL/points` lists the effects after which it has, one a line.
"""

import functools
import inspect
import os
import pathlib
import signal
import sys
from collections import Counter
from collections.abc import Callable

from agent.host import converge
from agent.host.assignments import States
from agent.host.converge import Actor
from agent.host.routes import Routes
from agent.linux import launcher, spawn
from agent.linux.fdstore import FdStore
from agent.linux.intake import Intake
from agent.linux.journal import Journal
from agent.linux.launcher import Launcher
from agent.linux.passage import Passage
from agent.supervisor import process
from agent.supervisor.instance import Instance
from agent.supervisor.logs import Logs, Marks
from agent.supervisor.pipes import Pipe
from agent.supervisor.process import Process
from agent.supervisor.records import Records
from agent.supervisor.ways import Ways
from agent.traffic.reuseport import Group

FOLDER = pathlib.Path(os.environ["MORTAL"])
POINTS = FOLDER / "points"
ARMED = FOLDER / "armed"
KNOWN = set(POINTS.read_text().splitlines())
SEEN: Counter[str] = Counter()
TIMES = 2  # an effect in an agent's first step is another thing than the same later


def reached(name: str) -> None:
    SEEN[name] += 1
    point = f"{name} {min(SEEN[name], TIMES)}"
    if point not in KNOWN and ARMED.exists():
        with POINTS.open("a") as points:
            points.write(f"{point}\n")
        os.kill(os.getpid(), signal.SIGKILL)


def watch(owner: object, method: str, name: Callable[..., str] | None = None) -> None:
    inner = getattr(owner, method)
    fixed = f"{getattr(owner, '__name__', 'function').rpartition('.')[2]}.{method}"

    @functools.wraps(inner)
    async def later(*args: object, **more: object) -> object:
        result = await inner(*args, **more)
        reached(name(*args) if name else fixed)
        return result

    @functools.wraps(inner)
    def now(*args: object, **more: object) -> object:
        result = inner(*args, **more)
        reached(name(*args) if name else fixed)
        return result

    setattr(owner, method, later if inspect.iscoroutinefunction(inner) else now)


watch(Instance, "_perform", lambda _self, action, _tasks: f"instance {type(action).__name__}")
watch(Actor, "_perform", lambda _self, action, _verified: f"swap {type(action).__name__}")
watch(FdStore, "_say", lambda _self, word, *_fds: "store " + ("put" if b"FDSTORE=1" in word else "drop or barrier"))
for owner, methods in {
    converge: ("take_up",),
    Group: ("_attach",),
    Instance: ("_remember", "_first"),
    Intake: ("take", "_move"),
    Journal: ("commit", "hand_over", "end_turn"),
    Passage: ("put", "send"),
    Pipe: ("make", "open"),
    Process: ("close", "kill", "fork_ahead", "_leave"),
    Records: ("put", "remove"),
    Routes: ("adopt", "slot", "route"),
    States: ("store",),
    Logs: ("journal", "keep"),
    Marks: ("open",),
    Ways: ("keep", "renew"),
    Launcher: ("begin", "ahead", "_fork", "launch"),
    launcher: ("_heard",),
    process: ("_make_ready", "_make_ways", "spawn"),
    spawn: ("_start_shell", "limit"),
}.items():
    for method in methods:
        watch(owner, method)


if __name__ == "__main__":
    from agent.__main__ import main

    sys.argv[0] = "rollway"
    main()
