"""A fleet of real hosts: a coordinator outside of them, on their network, and agents as systemd's services on each."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.e2e.fleet import ROOT
from tests.e2e.load import Load
from tests.e2e.repositories import repository
from tests.hosts.machines import OUTSIDE, Done, Host, Net, wait_for

APPS: Final = Path(__file__).parent / "apps"
PORT: Final = 8080
VERSIONS: Final = ("v1.0.0", "v2.0.0")
ROLLWAY_TOML: Final = """
app = "hello"
[process.web]
command = "python3 server.py"
count = 2
listen = ["0.0.0.0:8080"]
[process.web.stop]
linger = "3s"
grace = "10s"
[process.web.probe.readiness]
http = "/"
period = "200ms"
[process.limited]
command = "python3 limited.py"
[process.limited.limits]
memory = "64MiB"
tasks = 20
cpu = 0.5
enforce = "best-effort"
[process.limited.sandbox]
user = "daemon"
[process.limited.probe.startup]
notify = true
"""
LEASE_S: Final = 6
QUICK: Final = '[rolling]\nmin_ready = "500ms"\ndeadline = "60s"\n'
"""Settings of the environment: tests do not watch a good release for ten seconds."""


class Fleet:
    """`start` and `stop` are the coordinator's; `join` brings a host with Rollway on it in."""

    def __init__(self, net: Net, folder: Path) -> None:
        self.net, self._folder = net, folder
        self._process: subprocess.Popen[bytes] | None = None
        self.hosts: list[Host] = []
        self.version = ""
        state = folder / "coordinator"
        (folder / "coordinator.toml").write_text(
            f'listen = ["{OUTSIDE}:7070"]\nadvertise = ["https://{OUTSIDE}:7070"]\n'
            f'state_dir = "{state}"\n'
            f'database = "sqlite:///{state}/coordinator.db"\nstore = "file://{state}/store"\n'
            f'[tls]\nca = "{state}/tls/ca.pem"\nkey = "{state}/tls/key.pem"\n'
            f'certificate = "{state}/tls/certificate.pem"\n[singleton]\nlease = "{LEASE_S}s"\n'
        )
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            "ROLLWAY_COORDINATOR": f"https://{OUTSIDE}:7070",
            "ROLLWAY_CA": f"{state}/tls/ca.pem",
        }
        self._token_file = state / "bootstrap_token"

    def start(self) -> None:
        words = self.net.outside(
            sys.executable, "-m", "agent", "coordinator", "run", "--config", str(self._folder / "coordinator.toml")
        )
        with (self._folder / "coordinator.log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd=ROOT)
        wait_for("the coordinator answers", self._answers, explain=self.log)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        return self._token_file.exists() and self.rollway("status", code=None).returncode == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def log(self) -> str:
        return (self._folder / "coordinator.log").read_text()[-6000:]

    def rollway(self, *words: str, code: int | None = 0, cwd: Path | None = None) -> Done:
        """Run a verb outside, as an operator."""
        done = subprocess.run(
            self.net.outside(sys.executable, "-m", "agent", *words),
            env={**self._environment, "ROLLWAY_TOKEN": self._token_file.read_text().strip()},
            cwd=cwd or self._folder, capture_output=True, text=True, check=False, timeout=180,
        )  # fmt: skip
        said = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}\n{self.log() if done.returncode != code else ''}"
        assert code is None or done.returncode == code, f"rollway {words}: exit {done.returncode}, not {code}\n{said}"
        return done

    def join(self, host: Host) -> None:
        """Bring it into `production` and start its two units."""
        token = self.rollway("host", "token", "--environment", "production").stdout.strip()
        host.run("rollway", "agent", "join", token)
        host.run("systemctl", "enable", "--quiet", "--now", "rollway-agent", "rollway-apps")
        self.hosts.append(host)
        self.connects(host)

    def connects(self, host: Host) -> None:
        """Wait until the coordinator has the host's agent."""
        wait_for(f"{host.name} is connected", lambda: self.is_connected(host), explain=host.journal)

    def is_connected(self, host: Host) -> bool:
        rows = json.loads(self.rollway("host", "list", "--json").stdout)
        return any(row["host"] == host.name and row["connected"] for row in rows)

    def open_app(self) -> None:
        """Make the app, and let all hosts serve its first version."""
        text = {name: (APPS / name).read_text() for name in ("server.py", "limited.py")} | {
            "rollway.toml": ROLLWAY_TOML
        }
        repository(self._folder / "hello", {version: {**text, "VERSION": version} for version in VERSIONS})
        (self._folder / "production.toml").write_text(QUICK)
        app = self._folder / "hello"
        for version in VERSIONS:
            self.rollway("build", "--ref", version, cwd=app)
            self.rollway("release", "create", "hello", "production", "--ref", version, cwd=app)
        self.rollway("env", "set", "hello", "production", "--file", str(self._folder / "production.toml"))
        self.swap()

    def swap(self) -> None:
        """Go to the other version."""
        other = next(version for version in VERSIONS if version != self.version)
        self.rollway("swap", "hello", "production", other)
        self.version = other
        for host in self.hosts:
            self.serves(host)

    def answer(self, host: Host) -> dict[str, Any]:
        """What a user of the host gets; nothing where nobody answers."""
        done = self.net.run("curl", "-sm", "2", f"http://{host.address}:{PORT}/", code=None)
        return dict(json.loads(done.stdout)) if done.returncode == 0 and done.stdout.startswith("{") else {}

    def serves(self, host: Host) -> None:
        """Wait until users of the host get the version of the last swap."""
        wait_for(f"{host.name} serves {self.version}", lambda: self.answer(host).get("version") == self.version,
                 explain=lambda: host.journal() + host.journal("rollway-apps"))  # fmt: skip

    @contextmanager
    def asked(self, host: Host) -> Iterator["subprocess.Popen[str]"]:
        """A user whose request is in hand from the start of the block; the answer comes on stdout, in two seconds."""
        words = self.net.outside("curl", "-s", f"http://{host.address}:{PORT}/slow")
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as user:
            wait_for(
                "the request is in hand", lambda: host.run("find", "/run/rollway/i", "-name", "in-hand").stdout != ""
            )
            yield user

    @contextmanager
    def load(self) -> Iterator[Load]:
        """Users of all hosts, outside, until the block ends."""
        addresses = [host.address for host in self.hosts]
        words = [sys.executable, "-m", "agent.local.load", str(PORT), *addresses, "--pause-ms", "20"]
        with subprocess.Popen(
            self.net.outside(*words), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            users = Load(process)
            users.expect(*VERSIONS)
            try:
                yield users
            finally:
                process.communicate(timeout=30)


def instances(host: Host) -> list[int]:
    """The pids of the app's processes, as the host itself counts them."""
    return sorted(map(int, host.run("pgrep", "-f", "^(/usr/bin/)?python3 server.py", code=None).stdout.split()))
