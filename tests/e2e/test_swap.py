"""The promise: a swap is never felt by a user of the app. Real servers, real load, three hosts."""

import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import SHOP, Fleet, fleet, wait_for
from tests.e2e.load import load
from tests.e2e.repositories import repository

APPS = Path(__file__).parent / "apps"
REQUESTS = 20_000
HOSTS = ("h1", "h2", "h3")


@pytest.fixture(scope="module")
def three_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("swap")) as one:
        yield one


def addresses(one: Fleet) -> list[str]:
    return [one.address(host) for host in HOSTS]


def shop(one: Fleet, versions: dict[str, dict[str, str]]) -> Path:
    """The sample app, built and released in each version, with its database beside the fleet."""
    source = repository(one.folder / "shop", versions, source=SHOP)
    for version in versions:
        one.rollway("build", str(source), "--ref", version)
    one.rollway("config", "set", "shop", "local", f"DATABASE_URL=sqlite:///{one.folder / 'shop.db'}")
    for version in versions:
        one.rollway("release", "create", "shop", "local", "--ref", version, "--path", str(source), "--name", version)
    return source


def test_shop_is_swapped_unfelt(three_hosts: Fleet) -> None:
    """Rolling swaps of the sample app under 20,000 requests on new and as many on kept connections: none fails."""
    shop(three_hosts, {"v1.0.0": {"VERSION": "1.0.0\n"}, "v2.0.0": {"VERSION": "2.0.0\n"}})
    three_hosts.rollway("swap", "shop", "local", "v1.0.0")
    with load(8080, addresses(three_hosts), "1.0.0", orders=True) as users:
        swaps = 0
        while True:
            target, other = ("v2.0.0", "2.0.0") if swaps % 2 == 0 else ("v1.0.0", "1.0.0")
            users.expect("1.0.0", "2.0.0")
            three_hosts.rollway("swap", "shop", "local", target)
            users.expect(other)
            swaps += 1
            seen = users.tally()
            if seen["fresh"] >= REQUESTS and seen["kept"] >= REQUESTS:
                break
        seen = users.end()
    assert seen["failed"] == seen["cut"] == 0, seen["reasons"]
    with sqlite3.connect(three_hosts.folder / "shop.db") as database:
        kept = {order for (order,) in database.execute("SELECT id FROM orders")}
    confirmed = {f"demo-{number + 1}" for number in range(seen["orders"])}
    assert confirmed
    assert confirmed <= kept, "an order that was confirmed is not there"


FIELD = '\n[process.web.probe.readiness]\nhttp = "/"\nperiod = "200ms"\n[process.web.stop]\nlinger = "5s"\n'
SERVERS = {
    "gunicorn": (f"{sys.executable} -m gunicorn -c gunicorn_conf.py", ("wsgi_app.py", "gunicorn_conf.py"), 9501),
    "uvicorn": (f"{sys.executable} -m uvicorn --fd {{fd}} --no-access-log asgi_app:app", ("asgi_app.py",), 9502),
    "node": ("node node_app.js", ("node_app.js",), 9503),
}


@pytest.mark.parametrize("name", SERVERS)
def test_servers_of_others(three_hosts: Fleet, name: str) -> None:
    """gunicorn, uvicorn and node serving small apps not ours, swapped under load: no request fails."""
    command, programs, port = SERVERS[name]
    settings = (
        f'app = "{name}"\n[process.web]\ncommand = {json.dumps(command)}\ncount = 1\nlisten = ["0.0.0.0:{port}"]{FIELD}'
    )
    files = {"rollway.toml": settings, **{program: (APPS / program).read_text() for program in programs}}
    source = repository(
        three_hosts.folder / name, {"v1": {**files, "VERSION": "1"}, "v2": {"VERSION": "2"}, "v3": {"VERSION": "3"}}
    )
    for version in ("v1", "v2", "v3"):
        three_hosts.rollway("build", str(source), "--ref", version)
        words = ("--ref", version, "--path", str(source), "--name", version)
        three_hosts.rollway("release", "create", name, "local", *words)
    three_hosts.rollway("swap", name, "local", "v1")
    with load(port, addresses(three_hosts), "1", "2", "3") as users:
        for version in ("v2", "v3"):
            before = users.tally()
            three_hosts.rollway("swap", name, "local", version)
            users.wait_for(before["fresh"] + 500, before["kept"] + 500)
        seen = users.end()
    assert seen["failed"] == seen["cut"] == 0, seen["reasons"]
    assert three_hosts.releases(name) == {"v3"}
    wait_for("the slots of old releases are free", lambda: len(three_hosts.rows("ps", name, "local")) == len(HOSTS))


def test_an_address_that_changes(three_hosts: Fleet, tmp_path: Path) -> None:
    """Moved to another address and back, what listened at the old one ends in order, and no agent stumbles."""
    command = f'command = "{sys.executable} -P plain.py"'
    settings = f'app = "mover"\n[process.web]\n{command}\nlisten = ["0.0.0.0:9511"]{FIELD}'
    files = {"rollway.toml": settings, "plain.py": (APPS / "plain.py").read_text(), "behaviour": "good", "VERSION": "1"}
    source = repository(tmp_path / "mover", {"v1": files, "v2": {"VERSION": "2"}})
    three_hosts.rollway("build", str(source), "--ref", "v1")
    agents = three_hosts.pids("agent")
    for number, port in enumerate((9511, 9512, 9511, 9512)):
        (tmp_path / "env.toml").write_text(f'[listen]\nweb = ["0.0.0.0:{port}"]\n[rolling]\nmin_ready = "200ms"\n')
        three_hosts.rollway("env", "set", "mover", "local", "--file", str(tmp_path / "env.toml"))
        words = ("--ref", ("v1", "v2")[number % 2], "--path", str(source), "--name", f"r{number}")
        three_hosts.rollway("release", "create", "mover", "local", *words)
        three_hosts.rollway("swap", "mover", "local", f"r{number}")
        with load(port, addresses(three_hosts), "1", "2", pause_ms=20) as users:
            seen = users.wait_for(200, 200)
        assert seen["failed"] == 0, seen["reasons"]
    assert three_hosts.pids("agent") == agents, "no agent was started again"
