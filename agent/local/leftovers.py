"""Ends the instances whose agent could not: it was killed, and nobody started it again.

They are known by their environment, which names their folder below the hosts' folder of this very `up`. Looked for
again until none is found: what forks meanwhile is found by the next look. Synchronous.
"""

import signal
import time
from pathlib import Path
from typing import Final

from agent.linux import pidfd, procfs

_END_MAX_S: Final = 5.0
_LOOK_S: Final = 0.01


def mark(hosts_folder: Path) -> str:
    """What an entry of the environment of each instance of the hosts below `hosts_folder` begins with."""
    return f"ROLLWAY_DRAIN_FILE={hosts_folder}/"


def end(hosts_folder: Path) -> list[int]:
    """Kill every instance of the hosts below `hosts_folder`; gives the pids of all that were killed."""
    until_s = time.monotonic() + _END_MAX_S
    killed: set[int] = set()
    while (found := procfs.bearers(mark(hosts_folder))) and time.monotonic() < until_s:
        killed |= {one.pid for one in found if pidfd.send_to(one.pid, one.start_time, signal.SIGKILL)}
        time.sleep(_LOOK_S)
    return sorted(killed)
