"""As an agent does it: starts a process that leaves daemons behind and another program, says what becomes of all."""

import os
import select
import subprocess
import sys
from pathlib import Path

from agent.linux import orphans, pidfd, procfs
from agent.linux.spawn import Launch, Launched, keep_own_fds, spawn

LEAVES = 'for n in 1 2 3 4 5; do (setsid sh -c "read line < go; exit 3" &); done; echo left; read line < end; exit 7'


def children() -> dict[str, int]:
    """How many of ours are in which state."""
    states = [one.state for one in procfs.processes().values() if one.parent == os.getpid()]
    return {state: states.count(state) for state in sorted(set(states))}


def until(expected: dict[str, int]) -> None:
    """Wait until our children are so: nobody tells of those who become ours."""
    while children() != expected:
        select.select([], [], [], 0.01)


def main() -> None:
    orphans.become_subreaper()
    orphans.reap_for_ever()
    keep_own_fds()
    folder = Path(sys.argv[1])
    os.mkfifo(folder / "go")
    os.mkfifo(folder / "end")
    reader, writer = os.pipe()
    started = spawn(
        Launch(argv=("/bin/sh", "-c", LEAVES), env={"PATH": os.environ["PATH"]}, cwd=folder, stdout=writer, stderr=2)
    )
    assert isinstance(started, Launched)
    os.read(reader, 5)
    until({"S": 6})
    print("five daemons are ours", flush=True)
    (folder / "go").write_text("go\n")
    print("another program of ours:", subprocess.run(["/bin/false"], check=False).returncode, flush=True)
    until({"S": 1})
    print("none is left, nor its zombie", flush=True)
    (folder / "end").write_text("end\n")
    select.select([started.pidfd], [], [])
    status = pidfd.collect(started.pidfd)
    print("its own end:", status.code if status else None, flush=True)


main()
