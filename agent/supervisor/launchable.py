"""What the host hands over to have something run: an instance, or an admin process once. Values only.

Rules: a process sees its config, and what is named here, and nothing else of the agent's own world.
"""

import re
import shlex
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Final

from msgspec import Struct

from agent.decisions.process.probe import effective
from agent.decisions.process.state import Terms
from agent.model.assignment import ReleaseRef
from agent.model.ids import AppName, EnvironmentName, ProcessName, ReleaseName, is_name
from agent.model.lease import LeaseName
from agent.model.process import Limits, ProcessType, Sandbox
from agent.model.units import Milliseconds
from agent.wire.bpf import Mark

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FIRST_LISTENER_FD: Final = 3
_SLOT: Final = re.compile("0|[1-9][0-9]{0,8}")
"""One spelling for each number."""


class InstanceKey(Struct, frozen=True):
    """One place on this host: at most one process of ours lives under it."""

    app: AppName
    environment: EnvironmentName
    process: ProcessName
    slot: int

    @property
    def name(self) -> str:
        return f"{self.process}.{self.slot}"

    @property
    def lease(self) -> LeaseName:
        """That it needs where its type is a singleton."""
        return LeaseName(self.app, self.environment, self.process)

    def __str__(self) -> str:
        return f"{self.app}.{self.environment}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> "InstanceKey | None":
        """The key that is written so; None where it is none. Anybody may have written it, into an environment too."""
        words = text.split(".")
        if len(words) != 4 or not all(map(is_name, words[:3])) or not _SLOT.fullmatch(words[3]):  # noqa: PLR2004 - its parts
            return None
        app, environment, process, slot = words
        return cls(AppName(app), EnvironmentName(environment), ProcessName(process), int(slot))


class Target(Struct, frozen=True):
    """Where probes reach the instance; `source` is the address from which the shared port leads to this slot alone.

    Over IPv6 that is the address itself, with a mark.
    """

    host: str
    port: int
    source: str | None = None
    mark: Mark | None = None


class Listener(Struct, frozen=True):
    """One listening socket of the slot, and what its owner can tell and do about its queue."""

    socket: socket.socket
    queue_length: Callable[[], int]
    accept_and_close: Callable[[], int]


Config = Mapping[str, str]
ReadConfig = Callable[[], Awaitable[Config]]
"""Opens the config anew; raises RollwayError where that cannot be done."""


class Launchable(Struct, frozen=True, kw_only=True):
    """One instance: `type` gives the command and all policies; its count and addresses were used before."""

    key: InstanceKey
    release: ReleaseRef
    type: ProcessType
    cwd: str
    config: Config | ReadConfig
    """Of an instance that was taken up from an earlier agent it is read when it is to be started again."""
    addresses: tuple[str, ...] = ()
    """Where it listens, for a next agent."""
    listeners: tuple[Listener, ...] = ()
    """Handed over from fd 3 on, in this order. Empty where the instance binds `port` itself."""
    port: int | None = None
    target: Target | None = None
    """None: the type does not listen."""
    linger_ms: Milliseconds | None = None
    """Over the stop policy's linger."""

    @property
    def terms(self) -> Terms:
        """The policies under which it lives."""
        listens = self.target is not None
        return Terms(
            stop=self.type.stop,
            restart=self.type.restart,
            probes=effective(self.type.probes, listens=listens),
            listens=listens,
        )


class AdminCommand(Struct, frozen=True, kw_only=True):
    """An admin process: runs once in the identical environment of the release's instances."""

    app: AppName
    environment: EnvironmentName
    release: ReleaseName
    command: str
    cwd: str
    config: Mapping[str, str]
    timeout_ms: Milliseconds
    process: ProcessName = ProcessName("release")
    shell: bool = False
    limits: Limits = Limits()
    sandbox: Sandbox = Sandbox()


class WatchedCommand(Struct, frozen=True, kw_only=True):
    """A command that somebody watches, in the identical environment of the release's instances."""

    app: AppName
    environment: EnvironmentName
    release: ReleaseName
    words: tuple[str, ...]
    cwd: str
    config: Mapping[str, str]
    limits: Limits
    sandbox: Sandbox
    size: tuple[int, int] | None
    """Rows and columns of its terminal; None: it has pipes."""
    takes_input: bool
    process: ProcessName = ProcessName("run")


class AdminExit(Struct, frozen=True, kw_only=True):
    """How an admin process ended: neither code nor signal when it never ran, or nobody could tell."""

    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    failure: str = ""
    """Why it could not be started."""
    output: str = ""
    """The last of what it wrote."""
    unkept: tuple[str, ...] = ()
    """Limits that it had to do without."""

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0 and not self.timed_out

    @property
    def told(self) -> str:
        """The last of what it wrote; below that, how it ended where no exit code says so."""
        if self.timed_out:
            return f"{self.output}\nended at its timeout".lstrip("\n")
        if self.signal is not None:
            return f"{self.output}\nended by signal {self.signal} ({signal.strsignal(self.signal)})".lstrip("\n")
        return self.failure or self.output


@lru_cache(maxsize=1024)
def words_of(command: str, *, shell: bool, port: int | None) -> tuple[str, ...]:
    """The command as `exec` takes it, `{fd}` and `{port}` filled in. Raises ValueError for a quote without its end."""
    filled = {"{fd}": str(FIRST_LISTENER_FD)} | ({"{port}": str(port)} if port is not None else {})
    words = ["/bin/sh", "-c", command] if shell else shlex.split(command)
    for placeholder, value in filled.items():
        words = [word.replace(placeholder, value) for word in words]
    return tuple(words)


def environment_of(
    key: InstanceKey, release: ReleaseName, config: Mapping[str, str], port: int | None
) -> dict[str, str]:
    """What the process sees, besides its sockets and the paths of its folder."""
    given = {
        "ROLLWAY_APP": key.app,
        "ROLLWAY_ENVIRONMENT": key.environment,
        "ROLLWAY_RELEASE": release,
        "ROLLWAY_PROCESS": key.process,
        "ROLLWAY_INSTANCE": key.name,
    }
    if port is not None:
        given["PORT"] = str(port)
    return {"PATH": PATH, "LANG": "C.UTF-8", **config, **given}


def sockets_named(key: InstanceKey, count: int) -> dict[str, str]:
    """The words of socket activation; LISTEN_PID is added by whoever becomes the process."""
    return {"LISTEN_FDS": str(count), "LISTEN_FDNAMES": ":".join([key.process] * count)} if count else {}
