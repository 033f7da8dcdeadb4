"""What an app says of itself (`rollway.toml`, `Procfile`): process types, probes, policies, config keys.

Every duration is in milliseconds, every size in bytes. Defaults here are the defaults of the file.
"""

from typing import Literal

from msgspec import Struct

from agent.model.ids import AppName, ProcessName
from agent.model.units import Bytes, Milliseconds

SwapOrder = Literal["start-first", "stop-first"]
WhenNoneReady = Literal["wait", "refuse"]
Bind = Literal["fd", "port"]
ProbeKind = Literal["startup", "readiness", "liveness"]
RestartWhen = Literal["always", "on-failure", "never"]
OnPartition = Literal["stop", "keep"]
RollbackRule = Literal["safe", "barrier"]


class HttpCheck(Struct, frozen=True, kw_only=True, tag="http"):
    """GET `path` on the instance; ok when the status lies in `status_from..status_to`. The kubelet's semantics."""

    path: str
    tls: bool = False
    """Over TLS, whoever the certificate is for and whoever made it."""
    host: str | None = None
    """The Host header, and with TLS the name that is asked for; None: the instance's address."""
    headers: tuple[tuple[str, str], ...] = ()
    status_from: int = 200
    status_to: int = 399


class TcpCheck(Struct, frozen=True, kw_only=True, tag="tcp"):
    """Ok when the instance accepts a connection (on its slot, or on `port` of the host's own address)."""

    port: int | None = None


class ExecCheck(Struct, frozen=True, kw_only=True, tag="exec"):
    """Run `command` beside the instance, as the type's own command is run; ok when it exits with code 0 in time."""

    command: str


class NotifyCheck(Struct, frozen=True, kw_only=True, tag="notify"):
    """Asks nothing: the process says by sd_notify(3) that it is ready (READY=1), and for liveness that it lives on.

    Startup fails when READY=1 does not come within `initial_delay` and `failures` periods, liveness when WATCHDOG=1
    stays away for `failures` periods. `timeout` and `successes` mean nothing here.
    """


class Probe(Struct, frozen=True, kw_only=True):
    """One probe: what it asks, when it begins, how often, how long it waits, how many results in a row decide."""

    check: HttpCheck | TcpCheck | ExecCheck | NotifyCheck
    initial_delay_ms: Milliseconds = 0
    period_ms: Milliseconds = 10_000
    timeout_ms: Milliseconds = 1_000
    successes: int = 1
    failures: int = 3
    grace_ms: Milliseconds | None = None
    """Only for liveness: the grace of a kill that it causes; otherwise the stop policy's."""


class Probes(Struct, frozen=True, kw_only=True):
    """Startup gates the other two; readiness gates traffic, all life long; liveness restarts."""

    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None


class StopPolicy(Struct, frozen=True, kw_only=True):
    """Drain: out of the program, notice, linger, signal, grace, SIGKILL to the whole tree."""

    linger_ms: Milliseconds = 10_000
    signal: str = "SIGTERM"
    grace_ms: Milliseconds = 30_000


class CrashLoop(Struct, frozen=True, kw_only=True):
    restarts: int = 5
    within_ms: Milliseconds = 600_000


class RestartPolicy(Struct, frozen=True, kw_only=True):
    """First restart after `first_delay`, then `base_delay` doubled each time up to `max_delay`; jitter only adds."""

    policy: RestartWhen = "always"
    first_delay_ms: Milliseconds = 0
    base_delay_ms: Milliseconds = 500
    max_delay_ms: Milliseconds = 300_000
    reset_after_ms: Milliseconds = 600_000
    crash_loop: CrashLoop = CrashLoop()


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds of each instance, with all that it starts; None: no bound. Of cgroup v2, but for `open_files` (rlimit)."""

    memory_bytes: Bytes | None = None
    """Beyond it the kernel ends the whole instance."""
    memory_high_bytes: Bytes | None = None
    """Beyond it the instance is slowed and its memory reclaimed."""
    cpu_milli: int | None = None
    """Thousandths of a processor."""
    tasks: int | None = None
    """Processes and threads."""
    io_weight: int | None = None
    """Its share of a busy disk, beside 100 of who says nothing."""
    open_files: int | None = None
    """Of each process."""
    best_effort: bool = False
    """Whether it runs where the host cannot keep a bound; otherwise it is refused there."""


class Sandbox(Struct, frozen=True, kw_only=True):
    """What an instance may not do. None of them ever gains privileges by what it executes."""

    user: str | None = None
    """Of the host, with its groups; None: the agent's own."""


class ProcessType(Struct, frozen=True, kw_only=True):
    """A command with a count per host and the policies under which its instances live."""

    name: ProcessName
    command: str
    shell: bool = False
    """Whether `command` is given to `/bin/sh -c`; otherwise it is split into words as a shell would."""
    count: int = 1
    listen: tuple[str, ...] = ()
    """`ADDRESS:PORT` each; the agent owns one socket per slot and address and hands them over from fd 3 on."""
    bind: Bind = "fd"
    """`port`: the instance binds $PORT itself (Procfile apps): one instance, stop-first, a gap at each swap."""
    surge: int = 1
    swap: SwapOrder = "start-first"
    when_none_ready: WhenNoneReady = "wait"
    after: tuple[ProcessName, ...] = ()
    total: int = 0
    """Not 0: so many in the whole environment, in place of `count` on each host: the coordinator says how many here."""
    singleton: bool = False
    """At most one in the whole environment, stop-first: on the host that has the lease of it (`model.lease`)."""
    on_partition: OnPartition = "stop"
    """What becomes of a singleton whose host hears no coordinator: it ends before another host may run it, or it stays,
    and only a person moves it."""
    stop: StopPolicy = StopPolicy()
    restart: RestartPolicy = RestartPolicy()
    probes: Probes = Probes()
    limits: Limits = Limits()
    sandbox: Sandbox = Sandbox()


class ReleaseCommand(Struct, frozen=True, kw_only=True):
    """The admin process of a rollout (12-factor XII): once, on one host, before any new process starts."""

    command: str
    timeout_ms: Milliseconds = 600_000
    rollback: RollbackRule = "safe"


class ConfigKey(Struct, frozen=True, kw_only=True):
    required: bool = False
    secret: bool = False


class BuildSteps(Struct, frozen=True, kw_only=True):
    """Shell lines run in a clean export of the commit, in order; globs and folders left out of the archive."""

    run: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class AppSpec(Struct, frozen=True, kw_only=True):
    """One app as its own file declares it; part of the build, so that a release needs no file of the repository."""

    app: AppName
    build: BuildSteps = BuildSteps()
    release: ReleaseCommand | None = None
    processes: tuple[ProcessType, ...] = ()
    config: dict[str, ConfigKey] = {}

    def process(self, name: str) -> ProcessType | None:
        return next((process for process in self.processes if process.name == name), None)
