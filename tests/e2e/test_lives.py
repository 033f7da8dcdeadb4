"""Apps that are not ours, some of them badly behaved, on a fleet as a user has it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.fleet import Fleet, fleet, wait_for
from tests.e2e.repositories import repository

APPS = Path(__file__).parent / "apps"
QUICK = """
[rolling]
min_ready = "200ms"
deadline = "4s"
"""


@pytest.fixture(scope="module")
def one_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("lives"), hosts=1) as one:
        yield one


def plain(
    folder: Path,
    app: str,
    port: int,
    versions: dict[str, str],
    *,
    stop: str = "",
    more: str = "",
    files: dict[str, dict[str, str]] | None = None,
) -> Path:
    """An app around `apps/plain.py`; `versions` says how each version behaves, `files` what else it has."""
    settings = f"""
app = "{app}"
[process.web]
command = "{sys.executable} -P plain.py"
listen = ["0.0.0.0:{port}"]
[process.web.restart]
base_delay = "100ms"
crash_loop = {{ restarts = 3, within = "1m" }}
[process.web.stop]
linger = "1s"
{stop}
[process.web.probe.readiness]
http = "/ready"
period = "200ms"
"""
    program = (APPS / "plain.py").read_text()
    return repository(
        folder,
        {
            version: {
                "rollway.toml": settings + more,
                "plain.py": program,
                "behaviour": behaviour,
                "VERSION": version,
                **(files or {}).get(version, {}),
            }
            for version, behaviour in versions.items()
        },
    )


def deploy(one: Fleet, app: str, source: Path, version: str, code: int = 0) -> str:
    """Build, release and swap one version; gives what `swap` said, on either stream."""
    one.rollway("build", str(source), "--ref", version)
    file = one.folder / "quick.toml"
    file.write_text(QUICK)
    one.rollway("env", "set", app, "local", "--file", str(file))
    one.rollway("release", "create", app, "local", "--ref", version, "--path", str(source), "--name", version)
    done = one.rollway("swap", app, "local", version, code=code)
    return done.stdout + done.stderr


def web_pids(one: Fleet, app: str) -> list[int]:
    return [int(str(row["pid"])) for row in one.rows("ps", app, "local") if row["process"] == "web" and row["pid"]]


def test_ignored_sigterm_is_ended(one_host: Fleet, tmp_path: Path) -> None:
    """An app that ignores SIGTERM is killed at the end of its grace, and the swap goes on."""
    source = plain(tmp_path / "r", "deaf", 9101, {"v1": "ignores-sigterm", "v2": "good"}, stop='grace = "500ms"')
    deploy(one_host, "deaf", source, "v1")
    (old,) = web_pids(one_host, "deaf")
    deploy(one_host, "deaf", source, "v2")
    wait_for("the old process is gone", lambda: not psutil.pid_exists(old))
    assert one_host.releases("deaf") == {"v2"}


def test_double_fork_does_not_escape(one_host: Fleet, tmp_path: Path) -> None:
    """A daemon that an instance forked away ends with its instance."""
    source = plain(tmp_path / "r", "daemons", 9102, {"v1": "double-forks", "v2": "good"}, stop='grace = "500ms"')
    deploy(one_host, "daemons", source, "v1")
    ours = [process for process in psutil.process_iter() if marked(process, "daemons")]
    assert len(ours) >= 2, "the daemon and its server run"
    deploy(one_host, "daemons", source, "v2")
    wait_for("nothing of v1 is left", lambda: not any(process.is_running() for process in ours))


def marked(process: psutil.Process, app: str) -> bool:
    """Whether the process carries the mark that the agent gives each instance's environment."""
    try:
        return process.environ().get("ROLLWAY_APP") == app
    except (psutil.Error, OSError):
        return False


def test_exit_at_once_fails_the_swap(one_host: Fleet, tmp_path: Path) -> None:
    """An app that exits at once never takes over: the release before it stays, exit code 3."""
    source = plain(tmp_path / "r", "short", 9103, {"v1": "good", "v2": "exits"})
    deploy(one_host, "short", source, "v1")
    before = web_pids(one_host, "short")
    said = deploy(one_host, "short", source, "v2", code=3)
    assert "web." in said
    wait_for("v1 alone runs", lambda: one_host.releases("short") == {"v1"})
    assert web_pids(one_host, "short") == before, "the instance of v1 was never touched"


def test_never_ready_fails_the_swap(one_host: Fleet, tmp_path: Path) -> None:
    """An app that never becomes ready gets no traffic, and stable keeps running untouched."""
    source = plain(tmp_path / "r", "unready", 9104, {"v1": "good", "v2": "never-ready"})
    deploy(one_host, "unready", source, "v1")
    before = web_pids(one_host, "unready")
    said = deploy(one_host, "unready", source, "v2", code=3)
    assert "not ready within" in said
    assert "500" in said, "the probe's answer is named"
    wait_for("v1 alone runs", lambda: one_host.releases("unready") == {"v1"})
    assert web_pids(one_host, "unready") == before


def test_first_deploy_that_fails_leaves_nothing(one_host: Fleet, tmp_path: Path) -> None:
    """With nothing to go back to, a failed first deploy exits 1 and stops what it started."""
    source = plain(tmp_path / "r", "first", 9105, {"v1": "exits"})
    deploy(one_host, "first", source, "v1", code=1)
    wait_for("nothing of it runs", lambda: one_host.releases("first") == set())


def test_procfile_app(one_host: Fleet, tmp_path: Path) -> None:
    """A repository with only a Procfile runs: web on $PORT, and its other types beside it."""
    serve = f'web: {sys.executable} -c "{PORT_SERVER % one_host.address()}"\n'
    clock = f"clock: {sys.executable} -P clock.py\n"
    files = {"Procfile": serve + clock, "clock.py": (APPS / "clock.py").read_text()}
    source = repository(tmp_path / "foreman", {"v1": files, "v2": {"VERSION": "2"}})
    deploy(one_host, "foreman", source, "v1")
    rows = {str(row["process"]): row["state"] for row in one_host.rows("ps", "foreman", "local")}
    assert rows == {"web": "ready", "clock": "ready"}
    deploy(one_host, "foreman", source, "v2")
    assert one_host.releases("foreman") == {"v2"}
    assert "tick" in one_host.rollway("logs", "foreman", "local", "clock").stdout


PORT_SERVER = (
    "import http.server,os;"
    "http.server.ThreadingHTTPServer(('%s',int(os.environ['PORT'])),http.server.SimpleHTTPRequestHandler).serve_forever()"
)


def test_no_process_of_the_fleet_is_left(tmp_path: Path) -> None:
    """Ctrl-C drains and stops everything: no process of any role is left behind."""
    with fleet(tmp_path, hosts=2) as one:
        source = plain(tmp_path / "r", "tidy", 9106, {"v1": "good"})
        deploy(one, "tidy", source, "v1")
        assert one.process is not None
        family = [one.process.pid, *(child.pid for child in psutil.Process(one.process.pid).children(recursive=True))]
        family += web_pids(one, "tidy")
        assert len(web_pids(one, "tidy")) == 2
        assert one.stop() in (0, 130)
    left = [pid for pid in family if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert left == [], os.linesep.join(" ".join(psutil.Process(pid).cmdline()) for pid in left)
