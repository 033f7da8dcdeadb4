"""Small Debian hosts with a real systemd as PID 1, on a network of their own, for tests.

    with machines() as net:
        host = net.host("h1")        # booted: host.run("systemctl", "is-system-running")
        host.cut(), host.heal()      # the network; host.crash(), host.boot(): power loss and its end
        net.run("curl", f"http://{host.address}:8080/")   # from outside, where coordinators and users are

Rules: every test process has network namespaces, cgroups, mounts and folders of its own, named by its pid, and all
hosts die with it; what one that was killed has left is removed by the next. A host is the image with an overlay on a
tmpfs, which lasts from boot to boot. A crash kills PID 1 and with it everything, but the page cache is the machine's:
what an app has written without forcing it to disk is not lost as it would be by a real power loss.
"""

import contextlib
import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from agent.linux import cgroup
from tests.hosts.image import KEPT, image

NET: Final = "10.77.0"
OUTSIDE: Final = f"{NET}.1"
DEADLINE_S: Final = 60.0
POWER_OFF: Final = signal.SIGRTMIN + 4
"""How systemd as PID 1 is asked for it."""
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Done = subprocess.CompletedProcess[str]


class Host:
    """One host, made and booted by `Net.host`."""

    def __init__(self, net: "Net", name: str, number: int, base: str, binds: dict[Path, str]) -> None:
        self.name, self.address = name, f"{NET}.{number}"
        self._net, self._namespace = net, f"{net.name}-{name}"
        self._binds = binds
        self._folder = net.folder / name
        self._link = f"v{number}"
        self._cgroup = cgroup.create(_cgroups(), self._namespace)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        for part in ("upper", "work", "root"):
            (self._folder / part).mkdir(parents=True)
        layers = f"lowerdir={base},upperdir={self._folder / 'upper'},workdir={self._folder / 'work'}"
        _do("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
        (self.root / "etc/hostname").write_text(f"{name}\n")
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{self.address} {name}\n")
        _do("ip", "netns", "add", self._namespace)
        _do("ip", "-n", net.name, "link", "add", self._link, "type", "veth",
            "peer", "name", "host0", "netns", self._namespace)  # fmt: skip
        _do("ip", "-n", net.name, "link", "set", self._link, "master", "br0", "up")
        _do("ip", "-n", self._namespace, "addr", "add", f"{self.address}/24", "dev", "host0")
        for link in ("lo", "host0"):
            _do("ip", "-n", self._namespace, "link", "set", link, "up")

    @property
    def root(self) -> Path:
        """Its root folder, as the machine outside sees it."""
        return self._folder / "root"

    @property
    def upper(self) -> Path:
        """What it has that the image has not."""
        return self._folder / "upper"

    def boot(self) -> None:
        """Switch it on and wait until systemd has started everything."""
        assert self._nspawn is None, f"{self.name} is on"
        words = ["systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}", f"--machine={self._namespace}",
                 f"--hostname={self.name}", "--register=no", "--keep-unit", "--resolv-conf=off", "--link-journal=no",
                 f"--network-namespace-path=/run/netns/{self._namespace}", "--console=read-only",
                 # A container may not look into other processes by default; a host may.
                 "--system-call-filter=pidfd_getfd"]  # fmt: skip
        words += [f"--bind-ro={source}:{target}" for source, target in self._binds.items()]
        with (self._folder / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                [*_into(self._cgroup), "setpriv", "--pdeathsig", "KILL", *words],
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip
        wait_for(f"{self.name} has booted", self._has_booted, explain=self.console)

    def _has_booted(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, f"{self.name} did not boot:\n{self.console()}"
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._nspawn.pid).children():
                self._leader = child.pid
                if self.run("systemctl", "is-system-running", code=None).stdout.strip() in {"running", "degraded"}:
                    return True
        return False

    def run(self, *words: str, code: int | None = 0, feed: str = "") -> Done:
        """Run a command as root; fails unless it exits with `code`, if that is given."""
        inside = ["nsenter", "-t", str(self._leader), "-a", "env", "-i", f"PATH={PATH}", "HOME=/root", *words]
        return _run(inside, f"{self.name}: {' '.join(words)}", code, feed)

    def write(self, path: str, text: str) -> None:
        """Put a file there, its folder with it."""
        self.run("sh", "-c", f'mkdir -p "$(dirname {path})" && cat >{path}', feed=text)

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def journal(self, unit: str = "rollway-agent") -> str:
        """What a unit has said itself, without the lines of apps, since the host was switched on."""
        said = self.run("journalctl", "-b", "--no-pager", "-o", "cat", "-u", unit, code=None).stdout
        return "".join(line for line in said.splitlines(keepends=True) if '"stream":' not in line)

    def show(self, unit: str, what: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", what, unit).stdout.strip()

    def console(self) -> str:
        return (self._folder / "console.log").read_text(errors="replace")[-4000:]

    def cut(self) -> None:
        """Part it from the network: nothing goes out or comes in, and nobody is told."""
        _do("ip", "-n", self._net.name, "link", "set", self._link, "nomaster")

    def heal(self) -> None:
        _do("ip", "-n", self._net.name, "link", "set", self._link, "master", "br0")

    def crash(self) -> None:
        """Power loss: everything on it ends at once, and nothing is said or written any more."""
        os.kill(self._leader, signal.SIGKILL)
        self._wait_off()

    def stop(self) -> None:
        """Shut it down in order, as a person would."""
        os.kill(self._leader, POWER_OFF)
        self._wait_off()

    def _wait_off(self) -> None:
        assert self._nspawn is not None
        try:
            self._nspawn.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end in {DEADLINE_S:g} s:\n{self.console()}") from None
        self._nspawn = None

    def end(self) -> None:
        """Whatever it does, it is off."""
        if self._nspawn is not None:
            cgroup.kill(self._cgroup)
            self._nspawn.wait()
            self._nspawn = None


class Net:
    """A bridge in a namespace of its own; `run` and `popen` are there, at OUTSIDE."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.hosts: dict[str, Host] = {}
        _do("ip", "netns", "add", name)
        _do("ip", "-n", name, "link", "set", "lo", "up")
        _do("ip", "-n", name, "link", "add", "br0", "type", "bridge")
        _do("ip", "-n", name, "addr", "add", f"{OUTSIDE}/24", "dev", "br0")
        _do("ip", "-n", name, "link", "set", "br0", "up")

    def host(self, name: str, *, base: str | None = None, binds: dict[Path, str] | None = None) -> Host:
        """A new host that has booted: the image, or what `base` names (`lowerdir=` of an overlay)."""
        made = Host(self, name, len(self.hosts) + 2, base or str(image()), binds or {})
        self.hosts[name] = made
        made.boot()
        return made

    def outside(self, *words: str) -> list[str]:
        """The words of a command that is to run outside of all hosts, on their network."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *words]

    def run(self, *words: str, code: int | None = 0) -> Done:
        return _run(self.outside(*words), " ".join(words), code)


@contextmanager
def machines() -> Iterator[Net]:
    """A network without hosts; at the end all hosts are off and nothing is left of them."""
    runs = KEPT / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    _sweep(runs)
    name = next(
        f"rw{os.getpid()}x{number}" for number in range(100) if not (runs / f"rw{os.getpid()}x{number}").exists()
    )
    folder = runs / name
    with (runs / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir()
        _do("mount", "-t", "tmpfs", "-o", "size=2g,mode=0755", "tmpfs", str(folder))
        net = Net(folder, name)
        try:
            yield net
        finally:
            for host in net.hosts.values():
                host.end()
            _remove(folder)


def wait_for(
    what: str, true: Callable[[], bool], deadline_s: float = DEADLINE_S, explain: Callable[[], str] = lambda: ""
) -> None:
    """Ask again until it is so; the pause between two questions is no assertion on time."""
    end = time.monotonic() + deadline_s
    with selectors.DefaultSelector() as pause:
        while not true():
            assert time.monotonic() < end, f"not so within {deadline_s:g} s: {what}\n{explain()[-6000:]}"
            pause.select(0.1)


def _cgroups() -> Path:
    """Where cgroup v2 is mounted: each host has a cgroup of its own there."""
    return next(Path(part.mountpoint) for part in psutil.disk_partitions(all=True) if part.fstype == "cgroup2")


def _into(leaf: Path) -> list[str]:
    """The words before a command that is to run in a cgroup."""
    return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(leaf)]


def _sweep(runs: Path) -> None:
    """Remove what a test process that was killed has left: its hosts died with it."""
    for file in runs.glob("*.lock"):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), file.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(file.with_suffix(""))


def _remove(folder: Path) -> None:
    for left in _cgroups().glob(f"{folder.name}-*"):
        cgroup.kill(left)
        wait_for(f"{left} is empty", partial(cgroup.is_empty, left))
        cgroup.remove(left)
    for root in folder.glob("*/root"):
        subprocess.run(["umount", "--lazy", str(root)], capture_output=True, check=False)
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
    for namespace in Path("/run/netns").glob(f"{folder.name}*"):
        _do("ip", "netns", "delete", namespace.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)


def _do(*words: str) -> None:
    _run(list(words), " ".join(words), 0)


def _run(words: list[str], shown: str, code: int | None, feed: str = "") -> Done:
    done = subprocess.run(words, input=feed, capture_output=True, text=True, check=False, timeout=180)
    said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert code is None or done.returncode == code, f"{shown}: exit {done.returncode}, not {code}\n{said}"
    return done
