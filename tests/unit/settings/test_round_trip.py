"""An app written as a file and read again is the same app, and survives being stored."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.model.ids import AppName, ProcessName
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
    Probe,
    Probes,
    ProcessType,
    ReleaseCommand,
    RestartPolicy,
    Sandbox,
    StopPolicy,
    TcpCheck,
)
from agent.model.units import show_duration
from agent.settings.appfile import load_app

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
WORDS = st.lists(st.from_regex(r"[a-z./:é]{1,9}", fullmatch=True), min_size=1, max_size=3).map(" ".join)
HEADERS = st.dictionaries(st.sampled_from(["X-A", "X-B"]), st.sampled_from(["1", "a b"])).map(
    lambda headers: tuple(headers.items())
)
DELAYS = st.integers(0, 10**9)
LENGTHS = st.integers(1_000, 10**9)
NUMBERS = st.integers(1, 500)


def probe(checks: st.SearchStrategy[HttpCheck | TcpCheck | ExecCheck], *, kind: str) -> st.SearchStrategy[Probe | None]:
    """Probes of one kind, or none."""
    return st.none() | st.builds(
        Probe,
        check=checks,
        initial_delay_ms=DELAYS,
        period_ms=LENGTHS,
        timeout_ms=LENGTHS,
        successes=NUMBERS if kind == "readiness" else st.just(1),
        failures=NUMBERS,
        grace_ms=st.none() | DELAYS if kind == "liveness" else st.none(),
    )


def probes(*, listening: bool) -> st.SearchStrategy[Probes]:
    """Probes that a process type can have."""
    tcp = st.builds(TcpCheck, port=st.integers(1, 65_535) | (st.none() if listening else st.nothing()))
    http = st.builds(
        HttpCheck,
        path=st.sampled_from(["/", "/ready?full=1"]),
        tls=st.booleans(),
        host=st.none() | st.just("shop.example"),
        headers=HEADERS,
        status_from=st.integers(100, 299),
        status_to=st.integers(300, 599),
    )
    alone: st.SearchStrategy[HttpCheck | TcpCheck | ExecCheck] = tcp | st.builds(ExecCheck, command=WORDS)
    checks = alone | http if listening else alone
    told = NotifyCheck()
    return st.builds(
        Probes,
        startup=probe(checks, kind="startup")
        | st.builds(Probe, check=st.just(told), initial_delay_ms=DELAYS, period_ms=LENGTHS, failures=NUMBERS),
        readiness=probe(checks, kind="readiness") | st.just(Probe(check=told)),
        liveness=probe(checks, kind="liveness")
        | st.builds(Probe, check=st.just(told), period_ms=LENGTHS, failures=NUMBERS, grace_ms=st.none() | DELAYS),
    )


MANY = st.none() | st.integers(1, 10_000)
LIMITS = st.builds(
    Limits,
    memory_bytes=st.none() | st.integers(1 << 30, 1 << 40),
    memory_high_bytes=st.none() | st.integers(1 << 20, 1 << 30),
    cpu_milli=st.none() | st.integers(10, 1_024_000),
    tasks=MANY,
    io_weight=MANY,
    open_files=st.none() | st.integers(16, 1_000_000),
    best_effort=st.booleans(),
)


@st.composite
def process_types(draw: st.DrawFn, name: str, port: int, before: tuple[str, ...]) -> ProcessType:
    """A process type that may wait for those `before` it; with `port` it listens."""
    bind: Bind = draw(st.sampled_from(("fd", "port"))) if port else "fd"
    shares_host = bind == "fd"
    singleton = not port and draw(st.booleans())
    total = 0 if port or singleton else draw(st.integers(0, 500))
    return ProcessType(
        name=ProcessName(name),
        command=draw(WORDS) + (" {fd}" if port and bind == "fd" else ""),
        shell=draw(st.booleans()),
        count=1 if singleton or total else draw(st.integers(0, 500 if shares_host else 1)),
        listen=(f"0.0.0.0:{port}", f"[::1]:{port}") if port else (),
        bind=bind,
        surge=1 if singleton else draw(NUMBERS),
        swap=draw(st.sampled_from(("start-first", "stop-first"))) if shares_host and not singleton else "stop-first",
        total=total,
        singleton=singleton,
        on_partition=draw(st.sampled_from(("stop", "keep"))) if singleton else "stop",
        when_none_ready=draw(st.sampled_from(("wait", "refuse"))),
        after=tuple(ProcessName(other) for other in before if draw(st.booleans())),
        stop=StopPolicy(
            linger_ms=draw(DELAYS), signal=draw(st.sampled_from(("SIGTERM", "SIGINT"))), grace_ms=draw(DELAYS)
        ),
        restart=RestartPolicy(
            policy=draw(st.sampled_from(("always", "on-failure", "never"))),
            first_delay_ms=draw(DELAYS),
            base_delay_ms=(base := draw(LENGTHS)),
            max_delay_ms=base + draw(DELAYS),
            reset_after_ms=draw(LENGTHS),
            crash_loop=CrashLoop(restarts=draw(NUMBERS), within_ms=draw(LENGTHS)),
        ),
        probes=draw(probes(listening=bool(port))),
        limits=draw(LIMITS),
        sandbox=Sandbox(user=draw(st.none() | st.just("shop"))),
    )


@st.composite
def apps(draw: st.DrawFn) -> AppSpec:
    """Any app that keeps the rules."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    ports = [8000 + place if draw(st.booleans()) else 0 for place in range(len(names))]
    return AppSpec(
        app=AppName(draw(NAMES)),
        build=BuildSteps(
            run=tuple(draw(st.lists(WORDS, max_size=2))), exclude=draw(st.sampled_from(((), ("a/", "*.b"))))
        ),
        release=draw(
            st.none()
            | st.builds(
                ReleaseCommand, command=WORDS, timeout_ms=LENGTHS, rollback=st.sampled_from(("safe", "barrier"))
            )
        ),
        processes=tuple(
            draw(process_types(name, port, tuple(names[:place])))
            for place, (name, port) in enumerate(zip(names, ports, strict=True))
        ),
        config=draw(st.dictionaries(st.sampled_from(["A", "B_1"]), st.builds(ConfigKey, required=..., secret=...))),
    )


def written(spec: AppSpec) -> str:
    """`spec` as a file, with every key."""
    lines = [
        f"app = {toml(spec.app)}",
        "[build]",
        f"run = {toml(spec.build.run)}",
        f"exclude = {toml(spec.build.exclude)}",
    ]
    if spec.release:
        lines += [
            "[release]",
            f"command = {toml(spec.release.command)}",
            f'timeout = "{show_duration(spec.release.timeout_ms)}"',
        ]
        lines += [f"rollback = {toml(spec.release.rollback)}"]
    for process in spec.processes:
        lines += process_lines(process)
    for name, key in spec.config.items():
        lines += [f"[config.{name}]", f"required = {toml(key.required)}", f"secret = {toml(key.secret)}"]
    return "\n".join(lines)


def process_lines(process: ProcessType) -> list[str]:
    """The tables of one process type."""
    at = f"process.{process.name}"
    counted = "total" if process.total else "count"
    of_one = ("singleton", "on_partition") if process.singleton else ("surge", "singleton", counted)
    plain = ("command", "shell", "listen", "bind", "swap", "when_none_ready", "after", *of_one)
    lines = [f"[{at}]", *(f"{key} = {toml(getattr(process, key))}" for key in plain)]
    loop = process.restart.crash_loop
    lines += [*durations(f"{at}.stop", process.stop, "linger grace"), f"signal = {toml(process.stop.signal)}"]
    lines += durations(f"{at}.restart", process.restart, "first_delay base_delay max_delay reset_after")
    lines += [f"policy = {toml(process.restart.policy)}"]
    lines += [f'crash_loop = {{ restarts = {loop.restarts}, within = "{show_duration(loop.within_ms)}" }}']
    if process.sandbox.user is not None:
        lines += [f"[{at}.sandbox]", f"user = {toml(process.sandbox.user)}"]
    lines += limit_lines(f"{at}.limits", process.limits)
    for kind in ("startup", "readiness", "liveness"):
        one: Probe | None = getattr(process.probes, kind)
        if one is not None:
            lines += probe_lines(f"{at}.probe.{kind}", one, kind)
    return lines


def limit_lines(at: str, limits: Limits) -> list[str]:
    """The table of limits."""
    said = {
        "memory": None if limits.memory_bytes is None else f'"{limits.memory_bytes}B"',
        "memory_high": None if limits.memory_high_bytes is None else f'"{limits.memory_high_bytes}B"',
        "cpu": None if limits.cpu_milli is None else limits.cpu_milli / 1_000,
        **{key: getattr(limits, key) for key in ("tasks", "io_weight", "open_files")},
        "enforce": '"best-effort"' if limits.best_effort else '"required"',
    }
    return [f"[{at}]", *(f"{key} = {value}" for key, value in said.items() if value is not None)]


def probe_lines(at: str, one: Probe, kind: str) -> list[str]:
    """The table of one probe, with every key that means something for its kind."""
    keys = {"startup": "initial_delay period failures", "readiness": "", "liveness": "period failures"}[kind]
    if not isinstance(one.check, NotifyCheck):
        keys = "initial_delay period timeout successes failures"
    grace = " grace" if one.grace_ms is not None else ""
    numbers = [key for key in ("successes", "failures") if key in keys]
    spans = " ".join(key for key in (keys + grace).split() if key not in numbers)
    return [*durations(at, one, spans), *(f"{key} = {getattr(one, key)}" for key in numbers), *check_lines(one.check)]


def check_lines(check: HttpCheck | TcpCheck | ExecCheck | NotifyCheck) -> list[str]:
    """What a probe asks."""
    if isinstance(check, ExecCheck):
        return [f"exec = {toml(check.command)}"]
    if isinstance(check, NotifyCheck):
        return ["notify = true"]
    if isinstance(check, TcpCheck):
        return [f"tcp = {toml(True if check.port is None else check.port)}"]
    headers = ", ".join(f"{name} = {toml(value)}" for name, value in check.headers)
    host = [] if check.host is None else [f"host = {toml(check.host)}"]
    return [
        f"{'https' if check.tls else 'http'} = {toml(check.path)}",
        f'status = "{check.status_from}-{check.status_to}"',
        f"headers = {{ {headers} }}",
        *host,
    ]


def durations(table: str, values: object, keys: str) -> list[str]:
    """A table with the durations of `values`."""
    return [f"[{table}]", *(f'{key} = "{show_duration(getattr(values, f"{key}_ms"))}"' for key in keys.split())]


def toml(value: object) -> str:
    """JSON's spelling of strings, numbers, booleans and lists is also TOML's."""
    return json.dumps(value)


@given(apps())
def test_an_app_that_is_written_and_read_is_the_same_app(spec: AppSpec) -> None:
    """Every key of the file reaches its own setting, and no other."""
    assert load_app(written(spec), "rollway.toml") == spec


@given(apps())
def test_an_app_that_was_read_survives_being_stored(spec: AppSpec) -> None:
    """What is put in a build and a release comes out of it unchanged."""
    assert msgspec.json.decode(msgspec.json.encode(spec), type=AppSpec) == spec
