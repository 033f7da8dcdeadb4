"""`rollway logs`, and the last words of a release that failed."""

import json

import pytest

from agent.artifacts.sign import payload_digest
from tests.integration.cli.coordinator import FakeCoordinator
from tests.integration.cli.story import ENVELOPE, LOCAL, ready_to_swap, rollout, rollway

SERVES = {"h1": ["local"], "h2": ["local"], "h4": ["staging"]}
HOSTS = {
    "apps": [],
    "hosts": [{"host": h, "address": "", "connected": True, "environments": e} for h, e in SERVES.items()],
}
AWAY = b'{"host":"h3","error":"is not connected"}\n'


def record(host: str, message: str, *, release: str = "v2", stream: str = "stdout") -> bytes:
    fields = {"host": host, "ts": "2026-11-23T12:16:39.144183Z", "release": release, "instance": "web.1"}
    return json.dumps(fields | {"stream": stream, "message": message}).encode() + b"\n"


RECORDS = b"".join(
    (
        record("h1", "old and fine", release="v1"),
        record("h1", "Traceback"),
        record("h2", "listening"),
        record("h1", "Error: no database", stream="stderr"),
        record("h2", "GET /healthz HTTP/1.1 503", stream="stderr"),
        AWAY,
    )
)


def with_logs(fake: FakeCoordinator) -> None:
    ready_to_swap(fake)
    entry = {"release": "v2", "build": "", "version": "", "commit": "", "created_at_s": 0, "digest": "", "state": ""}
    shown = {"envelope": ENVELOPE.decode(), "digest": payload_digest(ENVELOPE)}
    running = {"host": "h1", "app": "shop", "environment": "local", "release": "v1", "pid": 7, "state": "ready"}
    fake.answers |= {
        ("GET", f"{LOCAL}/releases"): (200, [entry | {"app": "shop", "environment": "local"}]),
        ("GET", f"{LOCAL}/releases/v1"): (200, shown),
        ("GET", LOCAL): (200, {"file": "", "settings": {}}),
        ("GET", "/v1/ps"): (200, [running | {"process": "web", "instance": "web.6", "since": "", "restarts": 0}]),
        ("GET", "/v1/status"): (200, HOSTS),
        ("GET", f"{LOCAL}/logs"): (200, RECORDS),
    }


KNOWN = {
    "a type that the release declares": (["web"], 0, ""),
    "a slot of the release": (["web.1"], 0, ""),
    "a slot that only a host reports": (["web.6"], 0, ""),
    "a type that nobody has": (["nope.1"], 5, "It has web."),
    "a slot that nobody has": (["web.9"], 5, "It has web.1, web.2, web.3, web.4, web.5, web.6."),
    "slot nought": (["web.0"], 5, "no web.0"),
    "a host that never was": (["--host", "h9"], 5, "There are h1, h2, h4."),
    "a host of another environment": (["--host", "h4"], 5, "h4 does not serve local"),
    "a release that never was": (["--release", "v9"], 5, "releases/v9"),
    "a pattern that is none": (["--grep", "("], 2, "regular expression"),
}


@pytest.mark.parametrize("case", KNOWN)
def test_what_does_not_exist_is_named_with_what_does(
    case: str, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty answer would read as silence of the app."""
    words, code, said = KNOWN[case]
    with_logs(fake)
    assert rollway(monkeypatch, "logs", "shop", "local", *words) == code
    assert said in capsys.readouterr().err


CHOSEN = {
    "of one host": (["--host", "h2"], ["listening", "503"]),
    "of one release": (["--release", "v1"], ["old and fine"]),
    "by a regular expression": (["--grep", "no (data|memory)"], ["no database"]),
    "the last of each host": (["--grep", ".", "-n", "1"], ["no database", "503"]),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_logs_can_be_narrowed(
    case: str, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One finds the line without another tool; a host that cannot answer is a remark beside it."""
    words, ends = CHOSEN[case]
    with_logs(fake)
    assert rollway(monkeypatch, "logs", "shop", "local", *words) == 0
    streams = capsys.readouterr()
    lines = streams.out.splitlines()
    assert [line.endswith(end) for line, end in zip(lines, ends, strict=True)] == [True] * len(ends)
    assert streams.err == ("" if "--host" in words else "rollway: no logs of h3: is not connected\n")


ALL_HOSTS = {
    "apps": [],
    "hosts": [
        {"host": h, "address": "", "connected": h != "h3", "environments": ["local"]} for h in ("h1", "h2", "h3")
    ],
}
SLOW = b'{"host":"h1","error":"did not answer within 3 s"}\n{"host":"h2","error":"did not answer within 3 s"}\n'
NO_H3 = "rollway: no logs of h3: is not connected\n"
SILENT = {
    "the only host that was asked for": (["--host", "h3"], RECORDS, 6, 0, NO_H3),
    "the only host that is followed, while others go on": (["--host", "h3", "-f"], AWAY + RECORDS, 6, 0, NO_H3),
    "another than the one that was asked for": (["--host", "h2"], RECORDS, 0, 2, ""),
    "one of several": ([], RECORDS, 0, 5, NO_H3),
    "one of several, where all must answer": (["--strict"], RECORDS, 6, 5, "not every host gives its logs: h3\n"),
    "one, and the others have nothing to give": ([], AWAY, 0, 0, NO_H3),
    "every host": ([], AWAY + SLOW, 6, 0, "rollway: no host gives its logs: h3, h1, h2\n"),
    "the last host that was followed": (["-f"], RECORDS, 6, 5, "rollway: no host gives its logs: h3\n"),
}


@pytest.mark.parametrize("case", SILENT)
def test_a_host_without_an_answer_is_named_and_not_taken_for_silence(
    case: str, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script sees by the exit code that what it asked for was not answered; what did come is shown all the same."""
    words, records, code, lines, said = SILENT[case]
    with_logs(fake)
    fake.answers |= {("GET", "/v1/status"): (200, ALL_HOSTS), ("GET", f"{LOCAL}/logs"): (200, records)}
    assert rollway(monkeypatch, "logs", "shop", "local", *words) == code
    streams = capsys.readouterr()
    assert len(streams.out.splitlines()) == lines
    assert said in streams.err if said else streams.err == ""
    assert streams.err.count("h3") <= 2


def test_a_host_without_an_answer_is_an_error_in_json(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its record on stdout says why there are no others, and the error is the last line of stderr."""
    with_logs(fake)
    fake.answers["GET", "/v1/status"] = (200, ALL_HOSTS)
    assert rollway(monkeypatch, "logs", "shop", "local", "--host", "h3", "--json") == 6
    streams = capsys.readouterr()
    assert streams.out.encode() == AWAY
    error = json.loads(streams.err)
    assert (error["error"], error["code"]) == ("no logs of h3: is not connected", 6)


def test_json_logs_are_the_records_as_they_came(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One record a line, the remark about a host among them."""
    with_logs(fake)
    assert rollway(monkeypatch, "logs", "shop", "local", "--json") == 0
    assert capsys.readouterr().out.encode() == RECORDS


FAILED = {"state": "rolled_back", "reason": "h1 failed: web.1 exited with 1"}


def test_a_failed_swap_ends_with_what_the_release_said(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The app's own last complaint on the host that failed, and where there is more."""
    with_logs(fake)
    ended = rollout(changed_ms=2, hosts=[{"host": h, "state": "done"} for h in ("h1", "h2")], **FAILED)
    fake.answers["GET", "/v1/rollouts/r-1"] = (200, ended)
    assert rollway(monkeypatch, "swap", "shop", "local", "v2") == 3
    ending = capsys.readouterr().out.splitlines()[-3:]
    assert ending == [
        "shop local: v2 rolled back, v1 runs: h1 failed: web.1 exited with 1",
        "the last that v2 said (more: rollway logs shop local --release v2 --host h1):",
        "  12:16:39.144 h1 web.1 Error: no database",
    ]


def test_a_failed_swap_without_logs_says_how_to_get_them(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No answer about logs does not hide how the rollout ended."""
    ready_to_swap(fake, **FAILED)
    assert rollway(monkeypatch, "swap", "shop", "local", "v2") == 3
    assert capsys.readouterr().out.endswith("what v2 said: rollway logs shop local --release v2 --host h1\n")


def test_a_swap_that_worked_asks_for_no_logs(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a failure needs them."""
    ready_to_swap(fake, state="done")
    assert rollway(monkeypatch, "swap", "shop", "local", "v2") == 0
    assert not any(asked.path.startswith(f"{LOCAL}/logs") for asked in fake.asked)
