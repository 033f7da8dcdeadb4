"""`rollway.toml`: what an app says of itself."""

from typing import Final

from agent.model.ids import CONFIG_KEY_EXPECTED, ProcessName, is_config_key
from agent.model.process import (
    AppSpec,
    Bind,
    BuildSteps,
    ConfigKey,
    CrashLoop,
    ExecCheck,
    HttpCheck,
    Limits,
    NotifyCheck,
    OnPartition,
    Probe,
    ProbeKind,
    Probes,
    ProcessType,
    ReleaseCommand,
    RestartPolicy,
    RestartWhen,
    RollbackRule,
    Sandbox,
    StopPolicy,
    SwapOrder,
    TcpCheck,
    WhenNoneReady,
)
from agent.settings.appchecks import check_app
from agent.settings.kinds import (
    ADDRESS,
    APP_NAME,
    BOOLEAN,
    COMMAND,
    COUNT,
    CPU,
    DURATION,
    HEADER_NAME,
    HEADER_VALUE,
    MAX_COUNT,
    NAME,
    POSITIVE,
    STATUS_RANGE,
    TCP_PORT,
    TRUE,
    URL_PATH,
    USER_NAME,
    Kind,
    duration,
    integer,
    list_of,
    one_of,
    size,
    text_where,
)
from agent.settings.source import MISSING
from agent.settings.tables import Schema, Table, read_toml

SCHEMA: Final = Schema(
    known={
        "": "app",
        "build": "run exclude",
        "release": "command timeout rollback",
        "process.*": "command shell count listen bind surge swap when_none_ready after total singleton on_partition",
        "process.*.limits": "memory memory_high cpu tasks io_weight open_files enforce",
        "process.*.sandbox": "user",
        "process.*.stop": "linger signal grace",
        "process.*.restart": "policy first_delay base_delay max_delay reset_after",
        "process.*.restart.crash_loop": "restarts within",
        "process.*.probe.startup|readiness|liveness": (
            "http https host status tcp exec notify initial_delay period timeout successes failures"
        ),
        "process.*.probe.startup|readiness|liveness.headers": "*",
        "process.*.probe.liveness": "grace",
        "config.*": "required secret",
    },
    planned={
        "": "verify",
        "build": "assets",
        "process.*.sandbox": "writable",
        "process.*.stop": "notice",
    },
)

_UNASKED: Final[dict[ProbeKind, str]] = {
    "startup": "timeout successes",
    "readiness": "timeout successes failures period initial_delay",
    "liveness": "timeout successes initial_delay",
}
"""Keys that mean nothing where a process speaks by itself."""
_MEMORY: Final = size("1MiB", "64TiB")
_ENFORCE: Final = one_of("required", "best-effort")
_BIND: Final[Kind[Bind]] = one_of("fd", "port")
_SWAP: Final[Kind[SwapOrder]] = one_of("start-first", "stop-first")
_WHEN_NONE_READY: Final[Kind[WhenNoneReady]] = one_of("wait", "refuse")
_RESTART: Final[Kind[RestartWhen]] = one_of("always", "on-failure", "never")
_ON_PARTITION: Final[Kind[OnPartition]] = one_of("stop", "keep")
_ROLLBACK: Final[Kind[RollbackRule]] = one_of("safe", "barrier")
_SIGNAL: Final[Kind[str]] = one_of("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH")
_CONFIG_KEY: Final = text_where(CONFIG_KEY_EXPECTED, is_config_key)
_INSIDE: Final = text_where(
    "a path or glob inside the build", lambda path: path.strip("/") and path[0] != "/" and ".." not in path.split("/")
)


def load_app(text: str, file: str) -> AppSpec:
    """The app that `text` declares; `file` is its name in errors. Raises SettingsError."""
    root = read_toml(text, file, SCHEMA)
    spec = AppSpec(
        app=root.need("app", APP_NAME),
        build=_build(root.table("build")),
        release=_release(root.table("release")) if "release" in root else None,
        processes=tuple(_process(ProcessName(name), table) for name, table in root.table("process").tables(NAME)),
        config={key: _config_key(table) for key, table in root.table("config").tables(_CONFIG_KEY)},
    )
    check_app(spec, root.source)
    return spec


def _build(table: Table) -> BuildSteps:
    return BuildSteps(run=table.get("run", list_of(COMMAND), ()), exclude=table.get("exclude", list_of(_INSIDE), ()))


def _release(table: Table) -> ReleaseCommand:
    default = ReleaseCommand(command="")
    return ReleaseCommand(
        command=table.need("command", COMMAND),
        timeout_ms=table.get("timeout", duration("1s"), default.timeout_ms),
        rollback=table.get("rollback", _ROLLBACK, default.rollback),
    )


def _config_key(table: Table) -> ConfigKey:
    return ConfigKey(
        required=table.get("required", BOOLEAN, default=False), secret=table.get("secret", BOOLEAN, default=False)
    )


def _process(name: ProcessName, table: Table) -> ProcessType:
    default = ProcessType(name=name, command="")
    singleton = table.get("singleton", BOOLEAN, default.singleton)
    _check_singleton(table, singleton=singleton)
    return ProcessType(
        name=name,
        command=table.need("command", COMMAND),
        shell=table.get("shell", BOOLEAN, default.shell),
        count=table.get("count", COUNT, default.count),
        listen=table.get("listen", list_of(ADDRESS), default.listen),
        bind=table.get("bind", _BIND, default.bind),
        surge=table.get("surge", integer(1, MAX_COUNT), default.surge),
        swap=table.get("swap", _SWAP, "stop-first" if singleton else default.swap),
        when_none_ready=table.get("when_none_ready", _WHEN_NONE_READY, default.when_none_ready),
        after=tuple(ProcessName(other) for other in table.get("after", list_of(NAME), ())),
        total=table.get("total", integer(1, MAX_COUNT), default.total),
        singleton=singleton,
        on_partition=table.get("on_partition", _ON_PARTITION, default.on_partition),
        stop=_stop(table.table("stop")),
        restart=_restart(table.table("restart")),
        probes=_probes(table.table("probe")),
        limits=_limits(table.table("limits")),
        sandbox=Sandbox(user=table.table("sandbox").find("user", USER_NAME)),
    )


def _check_singleton(table: Table, *, singleton: bool) -> None:
    if not singleton and "on_partition" in table:
        raise table.error("on_partition", "singleton = true beside it: others run on without a coordinator", "none")
    if "total" in table and "count" in table:
        raise table.error("count", "nothing beside total, which counts in the whole environment", '"count"')
    for key in ("count", "surge", "total"):
        if singleton and key in table:
            raise table.error(key, "nothing beside singleton = true: there is one in the whole environment", f'"{key}"')


def _limits(table: Table) -> Limits:
    limits = Limits(
        memory_bytes=table.find("memory", _MEMORY),
        memory_high_bytes=table.find("memory_high", _MEMORY),
        cpu_milli=table.find("cpu", CPU),
        tasks=table.find("tasks", POSITIVE),
        io_weight=table.find("io_weight", integer(1, 10_000)),
        open_files=table.find("open_files", integer(16)),
        best_effort=table.get("enforce", _ENFORCE, "required") == "best-effort",
    )
    if limits.memory_bytes is not None and (limits.memory_high_bytes or 0) > limits.memory_bytes:
        raise table.error("memory_high", "no more than memory", "more")
    return limits


def _stop(table: Table) -> StopPolicy:
    default = StopPolicy()
    return StopPolicy(
        linger_ms=table.get("linger", DURATION, default.linger_ms),
        signal=table.get("signal", _SIGNAL, default.signal),
        grace_ms=table.get("grace", DURATION, default.grace_ms),
    )


def _restart(table: Table) -> RestartPolicy:
    default = RestartPolicy()
    loop = table.table("crash_loop")
    return RestartPolicy(
        policy=table.get("policy", _RESTART, default.policy),
        first_delay_ms=table.get("first_delay", DURATION, default.first_delay_ms),
        base_delay_ms=table.get("base_delay", duration("1ms"), default.base_delay_ms),
        max_delay_ms=table.get("max_delay", duration("1ms"), default.max_delay_ms),
        reset_after_ms=table.get("reset_after", duration("1ms"), default.reset_after_ms),
        crash_loop=CrashLoop(
            restarts=loop.get("restarts", POSITIVE, default.crash_loop.restarts),
            within_ms=loop.get("within", duration("1ms"), default.crash_loop.within_ms),
        ),
    )


def _probes(table: Table) -> Probes:
    def probe(kind: ProbeKind) -> Probe | None:
        return _probe(table.table(kind), kind) if kind in table else None

    return Probes(startup=probe("startup"), readiness=probe("readiness"), liveness=probe("liveness"))


def _probe(table: Table, kind: ProbeKind) -> Probe:
    check = _check(table, kind)
    default = Probe(check=check)
    return Probe(
        check=check,
        initial_delay_ms=table.get("initial_delay", DURATION, default.initial_delay_ms),
        period_ms=table.get("period", duration("100ms"), default.period_ms),
        timeout_ms=table.get("timeout", duration("1ms"), default.timeout_ms),
        successes=table.get("successes", POSITIVE, default.successes),
        failures=table.get("failures", POSITIVE, default.failures),
        grace_ms=table.find("grace", DURATION) if kind == "liveness" else None,
    )


def _check(table: Table, kind: ProbeKind) -> HttpCheck | TcpCheck | ExecCheck | NotifyCheck:
    ways = [way for way in ("http", "https", "tcp", "exec", "notify") if way in table]
    if len(ways) > 1:
        raise table.error(ways[1], "one of http, https, tcp, exec and notify", " and ".join(ways))
    if not {"http", "https"}.intersection(ways):
        for key in ("host", "headers", "status"):
            if ways and key in table:
                raise table.error(key, f"nothing beside {ways[0]}: only an http or https probe has it", f'"{key}"')
    if "exec" in ways:
        return ExecCheck(command=table.need("exec", COMMAND))
    if "tcp" in ways:
        return TcpCheck(port=table.need("tcp", TCP_PORT))
    if "notify" in ways:
        for key in _UNASKED[kind].split():
            if key in table:
                raise table.error(key, f"nothing beside notify in a {kind} probe: nobody is asked", f'"{key}"')
        table.need("notify", TRUE)
        return NotifyCheck()
    if not ways:
        raise table.error("http", f"{URL_PATH.expected}, tcp = true, exec or notify = true", MISSING)
    default = HttpCheck(path="/")
    low, high = table.get("status", STATUS_RANGE, (default.status_from, default.status_to))
    return HttpCheck(
        path=table.need(ways[0], URL_PATH),
        tls="https" in ways,
        host=table.find("host", HEADER_VALUE),
        headers=tuple(table.table("headers").items(HEADER_NAME, HEADER_VALUE)),
        status_from=low,
        status_to=high,
    )
