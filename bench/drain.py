"""What clients lose when an app is swapped: server by kind of client, with the drain notice and without.

Each server runs under `rollway up` and is swapped again and again while clients of all kinds (`draining/users.py`) ask
it. The table of docs/zero-downtime.md is this one's: results/drain.json and .md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.draining import proxy
from bench.draining.report import Cell, Results, Row, markdown
from bench.peers import setup
from bench.peers.machine import ROOT, machine
from bench.peers.results import show
from tests.e2e.fleet import Fleet, fleet
from tests.e2e.repositories import repository
from tests.integration.middleware.servers import SERVERS, WITHOUT_NOTICE, files

ENVIRONMENT: Final = "local"
LINGER_S: Final = 2.0
"""That of the environment `local`."""
FIRST_PORT: Final = 9720
NAMES: Final = {
    "gthread": "gunicorn gthread",
    "asgi": "gunicorn asgi",
    "uvicorn": "uvicorn",
    "hypercorn": "hypercorn",
    "aiohttp": "aiohttp",
    "node": "node",
    "granian": 'granian (`bind = "port"`)',
}
GRANIAN: Final = f"{sys.executable} -m granian --interface asgi --host 0.0.0.0 --port $PORT notice_asgi:app"
PACKAGES: Final = ("gunicorn", "uvicorn", "httptools", "hypercorn", "aiohttp", "granian")
PROBE: Final = '[process.web.probe.readiness]\nhttp = "/"\nperiod = "200ms"\n'
STOP: Final = '[process.web.stop]\ngrace = "5s"\n'
"""node and aiohttp wait for WebSockets that nobody closes until they are killed."""


def settings(app: str, server: str, port: int, node_path: Path, *, notice: bool) -> str:
    """rollway.toml of the app: granian, which takes no socket, binds its port itself."""
    way = "" if notice else f"{WITHOUT_NOTICE} "
    if server == "granian":
        how = f'command = {json.dumps(f"exec {way}{GRANIAN}")}\nshell = true\nbind = "port"\nswap = "stop-first"\n'
    else:
        how = f"command = {json.dumps(f'env NODE_PATH={node_path} {way}{SERVERS[server]}')}\n"
    return f'app = "{app}"\n[process.web]\n{how}listen = ["0.0.0.0:{port}"]\n{PROBE}{STOP}'


def race(one: Fleet, server: str, port: int, swaps: int, node_path: Path, *, notice: bool) -> Row:
    """Deploy the app, let everybody ask, swap it `swaps` times."""
    app = f"{server}{'' if notice else '-plain'}"
    text = settings(app, server, port, node_path, notice=notice)
    source = repository(one.folder / "sources" / app, {"v1": {"rollway.toml": text, **files()}})
    one.rollway("build", str(source), "--ref", "v1")
    for name in ("r1", "r2"):
        one.rollway("release", "create", app, ENVIRONMENT, "--ref", "v1", "--path", str(source), "--name", name)
    one.rollway("swap", app, ENVIRONMENT, "r1")
    address = one.address()
    websocket = "-" if server == "gthread" else "websocket"
    with proxy.in_front_of(address, port, one.folder, proxy.Doors(port + 100, port + 101)) as doors:
        words = [sys.executable, "-m", "bench.draining.users", address, str(port), *map(str, doors), websocket]
        with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as users:
            assert users.stdout is not None
            assert users.stdout.readline() == "asking\n"
            begun = time.perf_counter()
            for number in range(swaps):
                one.rollway("swap", app, ENVIRONMENT, ("r2", "r1")[number % 2])
            said, _ = users.communicate(timeout=60)
            seconds = time.perf_counter() - begun
    one.rollway("scale", app, ENVIRONMENT, "web=0")
    cells = {kind: Cell(*found) for kind, found in json.loads(said.splitlines()[-1]).items()}
    return Row(server=NAMES[server], notice=notice, swaps=swaps, seconds=seconds, cells=cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--swaps", type=int, default=5, help="of each server, with the notice and without")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--net", help="addresses for `rollway up`, as there")
    parser.add_argument("--out", help="write bench/results/OUT.json and .md; `drain` where all take part")
    given = parser.parse_args()
    out = given.out or ("drain" if given.only == list(NAMES) else None)
    sockets = setup.have("ws")
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="rollway-bench-") as folder,
        fleet(Path(folder), hosts=1, net=given.net) as one,
    ):
        for place, (server, notice) in enumerate(product(given.only, (False, True))):
            rows.append(race(one, server, FIRST_PORT + 2 * place, given.swaps, sockets.folder, notice=notice))
            lost = {kind: (cell.failed, cell.reasons) for kind, cell in rows[-1].cells.items() if cell.failed}
            print(f"{rows[-1].server}, {'with' if notice else 'without'} notice: {lost or 'nothing lost'}", flush=True)
    versions = {name: version(name) for name in PACKAGES} | {"node": setup.node_version(), "HAProxy": proxy.version()}
    results = Results(machine=machine(), versions=versions, linger_s=LINGER_S, rows=rows)
    show(results, markdown(results), out)


if __name__ == "__main__":
    main()
