"""`rollway.toml`: what it declares, and how each mistake in it is told."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.errors import SettingsError
from agent.model.process import AppSpec, ExecCheck, HttpCheck, NotifyCheck, ProcessType, TcpCheck
from agent.settings.appfile import SCHEMA, load_app

FILE = "rollway.toml"
WEB = 'app = "shop"\n[process.web]\ncommand = "serve"\n'
ONE = 'app = "shop"\n[process.clock]\ncommand = "clock"\nsingleton = true\n'
LISTENING = WEB + 'listen = ["0.0.0.0:8080"]\n'

WRONG: dict[str, tuple[str, tuple[str, ...]]] = {
    "text that is no TOML": ('app = "shop"\n[process.web', ("rollway.toml:2: expected TOML", "column")),
    "nesting without end": ("app = " + "[" * 5_000, ("expected TOML",)),
    "an integer without end": ("app = " + "9" * 5_000, ("expected TOML",)),
    "a key defined twice": ('app = "shop"\napp = "shop"\n', ("rollway.toml:2:", "expected TOML")),
    "an empty file": ("", ("rollway.toml: app: expected a name", "found nothing")),
    "an app name that no path can have": ('app = "../x"\n', ("rollway.toml:1: app: expected a name", 'found "../x"')),
    "no process type": ('app = "shop"\n', ("process: expected at least one process type", "found nothing")),
    "process as a value": ('app = "shop"\nprocess = 3\n', ("rollway.toml:2: process: expected a table, found 3",)),
    "process as an array": ('app = "shop"\n[[process]]\n', (":2: process: expected a table, found a list",)),
    "a process name with a capital": ('app = "shop"\n[process.Web]\n', (":2: process.Web: expected a name", '"Web"')),
    "a process name that needs quotes": ('app = "shop"\n[process."a b"]\n', (':2: process."a b": expected a name',)),
    "a misspelled key": (WEB + "comand = 1\n", (":4: process.web.comand: expected a known key", 'perhaps "command"')),
    "a misspelled table": (WEB + "[proces.x]\n", (":4: proces: expected a known key", 'perhaps "process"')),
    "a key like no other": (WEB + "[build]\nxyz = 1\n", (":5: build.xyz: expected one of exclude, run", "unknown key")),
    "an unknown probe": (
        WEB + "[process.web.probe.readyness]\n",
        ("probe.readyness: expected a known key", '"readiness"'),
    ),
    "grace of another probe": (
        WEB + '[process.web.probe.readiness]\ngrace = "1s"\n',
        ("readiness.grace", "unknown key"),
    ),
    "what a sandbox may write": (
        WEB + '[process.web.sandbox]\nwritable = ["data"]\n',
        (":5: process.web.sandbox.writable:", "not supported by this version of Rollway"),
    ),
    "nobody's name": (
        WEB + '[process.web.sandbox]\nuser = "no body"\n',
        ("sandbox.user: expected the name of a user of the hosts",),
    ),
    "no processor": (WEB + "[process.web.limits]\ncpu = 0\n", ("limits.cpu: expected processors, from 0.01",)),
    "a bound that comes after the end": (
        WEB + '[process.web.limits]\nmemory = "1GiB"\nmemory_high = "2GiB"\n',
        (":6: process.web.limits.memory_high: expected no more than memory",),
    ),
    "a bound that may be or not": (
        WEB + '[process.web.limits]\nenforce = "maybe"\n',
        ('limits.enforce: expected "required" or "best-effort"',),
    ),
    "an exec probe whose command is no words": (
        WEB + '[process.web.probe.startup]\nexec = "echo \'x"\n',
        ("startup.exec: expected a command in words", "No closing quotation"),
    ),
    "an exec probe that wants the socket": (
        LISTENING + '[process.web.probe.startup]\nexec = "ask {fd}"\n',
        ("startup.exec: expected no {fd} where no socket is handed over",),
    ),
    "an exec probe with a status": (
        WEB + '[process.web.probe.startup]\nexec = "x"\nstatus = "200"\n',
        ("startup.status: expected nothing beside exec: only an http or https probe has it",),
    ),
    "an https probe of who listens nowhere": (
        WEB + '[process.web.probe.startup]\nhttps = "/"\n',
        ("startup.https: expected process.web.listen, which an https probe asks",),
    ),
    "two ways to ask": (
        LISTENING + '[process.web.probe.startup]\nhttps = "/"\nhttp = "/"\n',
        ("startup.https: expected one of http, https, tcp, exec and notify", "found http and https"),
    ),
    "a total with a count": (
        WEB + "total = 3\ncount = 2\n",
        (":5: process.web.count: expected nothing beside total", 'found "count"'),
    ),
    "a total of none": (WEB + "total = 0\n", (":4: process.web.total: expected", "found 0")),
    "a total that listens": (
        WEB + 'total = 3\nlisten = ["0.0.0.0:80"]\n',
        (":5: process.web.listen: expected none with total", "0.0.0.0:80"),
    ),
    "a singleton with a total": (ONE + "total = 1\n", (":5: process.clock.total: expected nothing beside singleton",)),
    "a singleton with a count": (
        ONE + "count = 1\n",
        (":5: process.clock.count: expected nothing beside singleton = true", 'found "count"'),
    ),
    "a singleton with a surge": (ONE + "surge = 2\n", (":5: process.clock.surge: expected nothing beside singleton",)),
    "a singleton that starts first": (
        ONE + 'swap = "start-first"\n',
        (":5: process.clock.swap:", 'expected swap = "stop-first" with singleton = true'),
    ),
    "a singleton that listens": (
        ONE + 'listen = ["0.0.0.0:80"]\n',
        (":5: process.clock.listen: expected none with singleton = true", "0.0.0.0:80"),
    ),
    "a partition of nobody": (
        WEB + 'on_partition = "keep"\n',
        (":4: process.web.on_partition: expected singleton = true beside it",),
    ),
    "a partition of another kind": (
        ONE + 'on_partition = "move"\n',
        (':5: process.clock.on_partition: expected "stop" or "keep"', 'found "move"'),
    ),
    "assets": (WEB + '[build]\nassets = ["x"]\n', (":5: build.assets:", "not supported by this version")),
    "verify": (WEB + '[verify]\ncommand = "x"\n', (":4: verify:", "not supported by this version")),
    "no command": (
        'app = "shop"\n[process.web]\ncount = 1\n',
        (":2: process.web.command: expected a command, found nothing",),
    ),
    "a blank command": (
        'app = "shop"\n[process.web]\ncommand = " "\n',
        (":3: process.web.command: expected a command",),
    ),
    "a comment as a command": (
        'app = "shop"\n[process.web]\ncommand = "\'\'\'"\n',
        ("process.web.command: expected a command in words", "No closing quotation"),
    ),
    "NUL in a command": ('app = "shop"\n[process.web]\ncommand = "a\\u0000"\n', ("command: expected a command",)),
    "a count in quotes": (WEB + 'count = "4"\n', (":4: process.web.count: expected an integer", 'found "4"')),
    "true as a count": (WEB + "count = true\n", ("process.web.count: expected an integer", "found true")),
    "a count with a point": (WEB + "count = 1.0\n", ("process.web.count: expected an integer", "found 1.0")),
    "a count below nothing": (WEB + "count = -1\n", ("process.web.count: expected an integer from 0", "found -1")),
    "a count beyond 64 bits": (WEB + "count = 99999999999999999999\n", ("process.web.count: expected an integer",)),
    "more instances than a host has slots for": (
        WEB + "count = 501\n",
        ("web.count: expected an integer from 0 to 500",),
    ),
    "a type that is called as the release command": (
        WEB + '[process.release]\ncommand = "x"\n',
        (":4: process.release: expected another name", "found release"),
    ),
    "no surge at all": (WEB + "surge = 0\n", ("process.web.surge: expected an integer from 1",)),
    "a duration without a unit": (
        WEB + '[process.web.stop]\nlinger = "10"\n',
        (":5: process.web.stop.linger: expected a duration", 'found "10"'),
    ),
    "a duration as a number": (
        WEB + "[process.web.stop]\nlinger = 10\n",
        ("stop.linger: expected a duration", "found 10"),
    ),
    "a date": (WEB + "count = 2025-01-01\n", ("process.web.count: expected an integer", "found the date 2025-01-01")),
    "a signal without SIG": (
        WEB + '[process.web.stop]\nsignal = "TERM"\n',
        ("stop.signal: expected", '"SIGTERM"', 'found "TERM"'),
    ),
    "a swap order that is none": (
        WEB + 'swap = "fast"\n',
        ('web.swap: expected "start-first" or "stop-first"', 'found "fast"'),
    ),
    "a listen address without a port": (
        WEB + 'listen = ["0.0.0.0"]\n',
        (":4: process.web.listen[0]: expected an address", 'found "0.0.0.0"'),
    ),
    "a host name to listen on": (WEB + 'listen = ["localhost:80"]\n', ("listen[0]: expected an address",)),
    "port 0": (WEB + 'listen = ["0.0.0.0:0"]\n', ("listen[0]: expected an address",)),
    "one address as a string": (WEB + 'listen = "0.0.0.0:80"\n', ("process.web.listen: expected a list of",)),
    "an IPv6 address without brackets": (WEB + 'listen = [":::80"]\n', ("listen[0]: expected an address",)),
    "an address twice": (
        WEB + 'listen = ["0.0.0.0:80", "0.0.0.0:80"]\n',
        (":4: process.web.listen[1]: expected an address that is not taken",),
    ),
    "two types on one address": (
        LISTENING + '[process.api]\ncommand = "a"\nlisten = ["127.0.0.1:8080"]\n',
        (":7: process.api.listen[0]:", 'while web listens on "0.0.0.0:8080"'),
    ),
    "after a type that is not there": (
        WEB + 'after = ["db"]\n',
        (":4: process.web.after[0]: expected a process type of this app: web", '"db"'),
    ),
    "after itself": (WEB + 'after = ["web"]\n', (":4: process.web.after: expected an order", "web after web")),
    "types after each other": (
        WEB + 'after = ["b"]\n[process.b]\ncommand = "b"\nafter = ["web"]\n',
        (".after: expected an order in which each can start, found a circle:",),
    ),
    "a port of its own without a port": (WEB + 'bind = "port"\n', (":4: process.web.bind: expected listen beside",)),
    "a port of its own, start-first": (
        LISTENING + 'bind = "port"\n',
        ('process.web.swap: expected swap = "stop-first"',),
    ),
    "a port of its own, twice": (
        LISTENING + 'bind = "port"\nswap = "stop-first"\ncount = 2\n',
        (":7: process.web.count: expected at most 1",),
    ),
    "{fd} without listen": (
        'app = "shop"\n[process.web]\ncommand = "x {fd}"\n',
        (":3: process.web.command: expected no {fd}",),
    ),
    "{fd} with a port of its own": (
        'app = "s"\n[process.web]\ncommand = "x {fd}"\nlisten = ["0.0.0.0:80"]\nbind = "port"\nswap = "stop-first"\n',
        ("process.web.command: expected no {fd}",),
    ),
    "{fd} in the release command": (WEB + '[release]\ncommand = "x {fd}"\n', ("release.command: expected no {fd}",)),
    "a release without a command": (
        WEB + '[release]\ntimeout = "1m"\n',
        (":4: release.command: expected a command, found nothing",),
    ),
    "an http probe without listen": (
        WEB + '[process.web.probe.readiness]\nhttp = "/"\n',
        (":5: process.web.probe.readiness.http: expected process.web.listen", "found no listen"),
    ),
    "a tcp probe that has no port to ask": (
        WEB + "[process.web.probe.startup]\ntcp = true\n",
        ("startup.tcp: expected a port",),
    ),
    "tcp = false": (
        LISTENING + "[process.web.probe.startup]\ntcp = false\n",
        ("startup.tcp: expected true, or a port",),
    ),
    "a probe of nothing": (
        LISTENING + "[process.web.probe.startup]\nfailures = 1\n",
        (":5: process.web.probe.startup.http: expected a path",),
    ),
    "a probe of both": (
        LISTENING + '[process.web.probe.startup]\nhttp = "/"\ntcp = true\n',
        (":7: process.web.probe.startup.tcp: expected one of",),
    ),
    "a status for a tcp probe": (
        LISTENING + '[process.web.probe.startup]\ntcp = true\nstatus = "200"\n',
        ("startup.status: expected nothing beside tcp",),
    ),
    "notify = false": (
        WEB + "[process.web.probe.startup]\nnotify = false\n",
        ("startup.notify: expected true, found false",),
    ),
    "a probe that asks and is told": (
        LISTENING + "[process.web.probe.startup]\ntcp = true\nnotify = true\n",
        ("startup.notify: expected one of http, https, tcp, exec and notify, found tcp and notify",),
    ),
    "patience with an answer that nobody asks for": (
        WEB + '[process.web.probe.liveness]\nnotify = true\ntimeout = "1s"\n',
        ("liveness.timeout: expected nothing beside notify in a liveness probe",),
    ),
    "a period in which nobody asks": (
        WEB + '[process.web.probe.readiness]\nnotify = true\nperiod = "1s"\n',
        ("readiness.period: expected nothing beside notify in a readiness probe",),
    ),
    "a path without a slash": (
        LISTENING + '[process.web.probe.startup]\nhttp = "ready"\n',
        ("startup.http: expected a path",),
    ),
    "a path that breaks the request": (
        LISTENING + '[process.web.probe.startup]\nhttp = "/ HTTP/1.1\\r\\n"\n',
        ("startup.http: expected a path",),
    ),
    "a header that breaks the request": (
        LISTENING + '[process.web.probe.startup]\nhttp = "/"\nheaders = { A = "b\\r\\nC: d" }\n',
        (":7: process.web.probe.startup.headers.A: expected a string of printable ASCII",),
    ),
    "a header name with a space": (
        LISTENING + '[process.web.probe.startup]\nhttp = "/"\nheaders = { "A B" = "c" }\n',
        ("the name of an HTTP header",),
    ),
    "a status range turned round": (
        LISTENING + '[process.web.probe.startup]\nhttp = "/"\nstatus = "399-200"\n',
        ("startup.status: expected a range",),
    ),
    "a probe too often": (
        LISTENING + '[process.web.probe.liveness]\nhttp = "/"\nperiod = "99ms"\n',
        ("liveness.period: expected a duration", "at least 100ms"),
    ),
    "two successes for liveness": (
        LISTENING + '[process.web.probe.liveness]\nhttp = "/"\nsuccesses = 2\n',
        (":7: process.web.probe.liveness.successes: expected 1 for a liveness probe, found 2",),
    ),
    "delays turned round": (
        WEB + '[process.web.restart]\nmax_delay = "1ms"\n',
        (":4: process.web.restart: expected max_delay to be at least",),
    ),
    "a config key in small letters": (WEB + "[config.url]\n", (":4: config.url: expected a config key",)),
    "a config key that the agent sets": (WEB + "[config.PORT]\n", (":4: config.PORT: expected a config key",)),
    "required as a word": (
        WEB + '[config.URL]\nrequired = "yes"\n',
        (":5: config.URL.required: expected true or false",),
    ),
    "an exclusion outside the build": (
        WEB + '[build]\nexclude = ["../x"]\n',
        ("build.exclude[0]: expected a path or glob inside",),
    ),
    "a build step that is a number": (
        WEB + '[build]\nrun = ["make", 3]\n',
        (":5: build.run[1]: expected a command, found 3",),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_by_place_expectation_and_finding(case: str) -> None:
    """Each mistake is told with the file, the line, the key path, what was expected and what was found."""
    text, fragments = WRONG[case]
    with pytest.raises(SettingsError) as caught:
        load_app(text, FILE)
    for fragment in (FILE, *fragments):
        assert fragment in caught.value.error
    assert caught.value.exit_code == 2


def test_an_app_of_one_command_has_every_default() -> None:
    """A name and a command are a whole app."""
    assert load_app(WEB, FILE) == AppSpec(app=load_app(WEB, FILE).app, processes=(web_by_default(),))


def web_by_default() -> ProcessType:
    """The process type that the shortest file declares."""
    return ProcessType(name=load_app(WEB, FILE).processes[0].name, command="serve")


CHECKS = {
    "a path": ('http = "/r"', HttpCheck(path="/r")),
    "a path and one status": ('http = "/r"\nstatus = "204"', HttpCheck(path="/r", status_from=204, status_to=204)),
    "a path, a host and a header": (
        'http = "/r"\nhost = "h"\nheaders = { X-A = "b" }',
        HttpCheck(path="/r", host="h", headers=(("X-A", "b"),)),
    ),
    "the instance's own socket": ("tcp = true", TcpCheck()),
    "a port": ("tcp = 9000", TcpCheck(port=9000)),
    "a path over TLS": ('https = "/r"\nhost = "h"', HttpCheck(path="/r", tls=True, host="h")),
    "a command": ('exec = "ask -v"', ExecCheck(command="ask -v")),
    "its own word": ("notify = true", NotifyCheck()),
}


@pytest.mark.parametrize("case", CHECKS)
def test_a_probe_asks_what_the_file_says(case: str) -> None:
    """A probe is a path with what counts as well, or a connection."""
    text, check = CHECKS[case]
    web = load_app(f"{LISTENING}[process.web.probe.readiness]\n{text}\n", FILE).processes[0]
    assert web.probes.readiness is not None
    assert web.probes.readiness.check == check


def test_an_address_has_one_spelling() -> None:
    """Addresses are stored canonically, so that the same one is never two."""
    web = load_app(WEB + 'listen = ["[0:0::0]:80", "127.0.0.1:0443"]\n', FILE).processes[0]
    assert web.listen == ("[::]:80", "127.0.0.1:443")


def test_the_first_mistake_in_a_file_is_always_the_same() -> None:
    """Unknown keys come first, in the order of the file."""
    text = 'app = 3\nfirst = 1\n[process.web]\nsecond = 1\ncount = "x"\n'
    errors = set()
    for _ in range(3):
        with pytest.raises(SettingsError) as caught:
            load_app(text, FILE)
        errors.add(caught.value.error)
    assert len(errors) == 1
    assert "first" in errors.pop()


VALUES = st.sampled_from(
    [
        "1",
        "-1",
        "true",
        '"x"',
        '"1s"',
        '"0.0.0.0:80"',
        '["x"]',
        '["0.0.0.0:80"]',
        "{}",
        "{ a = 1 }",
        "[[]]",
        "1e999",
        "nan",
    ]
)
NAMES = sorted(
    {name for path in (*SCHEMA.known, *SCHEMA.planned) for part in path for name in part.split("|")} | {"web", "A"}
)
PATHS = st.lists(st.sampled_from([name for name in NAMES if name != "*"]), min_size=1, max_size=5).map(".".join)
LINES = st.one_of(
    st.builds("{} = {}".format, PATHS, VALUES),
    PATHS.map("[{}]".format),
    PATHS.map("[[{}]]".format),
    st.text(max_size=20),
)


@given(st.lists(LINES, max_size=8).map("\n".join), st.booleans())
@example("app = '\ud800'", False)  # noqa: FBT003
def test_any_text_gives_an_app_or_a_settings_error(text: str, whole: bool) -> None:  # noqa: FBT001
    """Whatever a file holds, a person gets an app or an error for people, never a traceback."""
    try:
        spec = load_app(WEB.replace("[process", f"{text}\n[process", 1) if whole else text, FILE)
    except SettingsError as error:
        told = error.error
    else:
        told = f"{FILE}: {spec.app}"
    assert told.startswith(FILE)
    assert told.isprintable()
