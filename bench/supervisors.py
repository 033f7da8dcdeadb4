"""Start, restart, crash, stop, memory and CPU at rest of 1, 100 and 500 children, beside other supervisors in one run.

All keep the same tiny program running (`children/child.c`), each as it is meant to (`children/contestants.py`; Rollway
is the whole agent, `children/rollway.py` says how). Every child says itself when it began; ends are the kernel's word
(`children/race.py`). Peers are fetched into a cache folder (`peers/setup.py`); one that cannot be had is named.
Results: `results/supervisors.json`, `.md`. Needs a C compiler; as root with cgroup v2 each instance has its cgroup.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.children import births, contestants, race, report
from bench.children import rollway as agent
from bench.children.race import Prepare, Race
from bench.peers import setup
from bench.peers.machine import commit, machine
from bench.peers.results import show

SIZES: Final = (1, 100, 500)


def options() -> argparse.Namespace:
    names = [*agent.KINDS, *contestants.PEERS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--net", help="addresses for `rollway up`, as there")
    parser.add_argument("--out", help="write bench/results/OUT.json and .md; `supervisors` where all take part")
    given = parser.parse_args()
    if given.out is None and given.only == names:
        given.out = "supervisors"
    return given


def entries(
    names: list[str], top: Path, child: list[str], net: str | None, stack: ExitStack
) -> tuple[dict[str, tuple[Prepare, str]], dict[str, str]]:
    """Everything that takes part, with its version; and what does not, and why."""
    found: dict[str, tuple[Prepare, str]] = {}
    missing: dict[str, str] = {}
    if ours := [name for name in names if name in agent.KINDS]:
        host = top / "host"
        host.mkdir()
        us = stack.enter_context(agent.rollway(host, child, net))
        found |= {name: (partial(us.prepare, name), commit() + us.lacks) for name in ours}
    for name in names:
        if name in agent.KINDS:
            continue
        try:
            peer = setup.have(name.partition("+")[0])
        except (OSError, subprocess.CalledProcessError) as error:
            missing[name] = f"cannot be had here: {error}"
            continue
        found[name] = (partial(contestants.PEERS[name], peer), peer.version)
    return found, missing


def main() -> None:
    given = options()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="rollway-bench-") as folder, ExitStack() as stack:
        top = Path(folder)
        try:
            program = births.build(top)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"cannot compile the child (Debian: gcc, libc6-dev): {error}")
        heard = births.Births(top / "births")
        stack.callback(heard.close)
        found, missing = entries(given.only, top, [str(program), str(heard.path)], given.net, stack)
        run = Race(top, program, heard, SIZES)
        rounds: dict[str, list[race.Round]] = {name: [] for name in found}
        for number in range(given.rounds):
            for name, (prepare, _) in found.items():
                rounds[name].append(run.round(prepare))
                print(f"round {number + 1}: {name:<14}{report.summary(rounds[name][-1], SIZES)}", flush=True)
    rows = report.rows(rounds, {name: version for name, (_, version) in found.items()}, SIZES)
    results = report.Results(
        machine=machine(),
        rounds=given.rounds,
        sizes=SIZES,
        rows=rows,
        goals=report.judged(rows),
        missing=missing,
    )
    show(results, report.markdown(results), given.out)


if __name__ == "__main__":
    main()
