"""Verbs against a coordinator: what is sent, what is shown, and with which exit code a command ends."""

import base64
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pyrage  # type: ignore[import-untyped]  # it has no stubs
import pytest

from agent.artifacts.sign import payload_digest, verify_order
from agent.cli.main import VERBS, run
from agent.linux.atomic import write_atomically
from tests.integration.cli.coordinator import TOKEN, FakeCoordinator
from tests.integration.cli.story import DIGEST, ENVELOPE, LOCAL, OLD, ready_to_swap, rollout, rollway

DEADLINE_S: Final = 30
TIMED: Final = re.compile(r"\d\d:\d\d:\d\dZ .+")
TIME_WIDTH: Final = len("12:50:33Z ")

ENDS = {
    "done": ({"state": "done"}, 0),
    "rolled back": ({"state": "rolled_back", "reason": "h1 failed"}, 3),
    "aborted": ({"state": "aborted"}, 3),
    "failed": ({"state": "failed"}, 1),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_swap_waits_for_the_end_and_exits_by_it(
    case: str, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--json` prints the rollout as it ended, in the shape of the contract."""
    ends, code = ENDS[case]
    ready_to_swap(fake, **ends)
    assert rollway(monkeypatch, "swap", "shop", "local", "v2", "--json") == code
    shown = json.loads(capsys.readouterr().out)
    assert shown["state"] == ends["state"]
    assert {"id", "app", "environment", "release", "from", "strategy", "state", "reason", "hosts"} <= shown.keys()
    assert {asked.authorization for asked in fake.asked} == {f"Bearer {TOKEN}"}


def test_an_order_names_what_it_replaces_and_its_number(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is made on the operator's machine, after what they saw there."""
    ready_to_swap(fake, state="done")
    assert rollway(monkeypatch, "swap", "shop", "local", "v2") == 0
    (asked,) = fake.bodies("POST")
    order = verify_order(str(asked["order"]).encode())
    assert (order.kind, order.release, order.sequence) == ("swap", "v2", 8)
    assert order.release_digest == payload_digest(ENVELOPE)
    assert {"name": order.replaces, "digest": order.replaces_digest} == OLD


def test_a_rollback_without_words_leads_to_the_healthy_release_before(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 3 a.m. nobody has to know a name."""
    ready_to_swap(fake, state="done")
    assert rollway(monkeypatch, "rollback", "shop", "local") == 0
    order = verify_order(str(fake.bodies("POST")[0]["order"]).encode())
    assert (order.kind, order.release) == ("rollback", "v0")


def test_a_rollback_of_what_no_longer_runs_is_refused(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who saw v9 fail does not roll back somebody else's repair."""
    ready_to_swap(fake)
    assert rollway(monkeypatch, "rollback", "shop", "local", "--from", "v9") == 4
    assert fake.bodies("POST") == []


def test_a_first_deploy_has_nothing_to_roll_back_to(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, says the way forward, and fails."""
    fake.answers["GET", f"{LOCAL}/state"] = (200, {"runs": OLD, "stable": [OLD], "sequence": 1})
    assert rollway(monkeypatch, "rollback", "shop", "local") == 1
    error, what_to_do = capsys.readouterr().err.splitlines()
    assert "v1 is the oldest healthy release of shop in local" in error
    assert "rollway swap shop local RELEASE" in what_to_do


def test_a_pipe_gets_lines_without_escapes(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each change of a rollout is a line; what is not said twice does not fill a log."""
    ready_to_swap(fake, state="done", hosts=[{"host": "h1", "state": "done"}])
    assert rollway(monkeypatch, "swap", "shop", "local", "v2") == 0
    lines = ["rollout r-1: running", "h1: swapping", "rollout r-1: done", "h1: done", "shop local runs v2"]
    *changes, ending = capsys.readouterr().out.splitlines()
    assert all(TIMED.fullmatch(line) for line in changes)
    assert [*(line[TIME_WIDTH:] for line in changes), ending] == lines


def test_a_swapped_release_must_be_the_one_that_was_shown(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that gives another release's bytes gets no order for them."""
    ready_to_swap(fake)
    fake.answers["GET", f"{LOCAL}/releases/v2"] = (200, {"envelope": ENVELOPE.decode(), "digest": DIGEST})
    assert rollway(monkeypatch, "swap", "shop", "local", "v2") == 1
    assert fake.bodies("POST") == []


def with_config(fake: FakeCoordinator, key: pyrage.x25519.Identity) -> None:
    config = {"version": 3, "values": {"OLD": {"plain": "1"}}, "secrets": ["TOKEN"], "recipient": str(key.to_public())}
    fake.answers |= {
        ("GET", f"{LOCAL}/config"): (200, config),
        ("POST", f"{LOCAL}/config"): (200, {"version": 4}),
        ("GET", "/v1/apps/shop/builds"): (200, []),
    }


def test_a_secret_leaves_the_machine_encrypted_only(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the environment's key opens it; a key that once was secret is encrypted unasked."""
    key = pyrage.x25519.Identity.generate()
    with_config(fake, key)
    assert rollway(monkeypatch, "config", "set", "shop", "local", "TOKEN=pa=ss", "PLAIN=x") == 0
    (asked,) = fake.bodies("POST")
    values = asked["set"]
    assert asked["base_version"] == 3
    assert isinstance(values, dict)
    assert values["PLAIN"] == {"plain": "x"}
    assert pyrage.decrypt(base64.b64decode(values["TOKEN"]["age"]), [key]) == b"pa=ss"
    assert not any(b"pa=ss" in asked.body for asked in fake.asked)


def test_an_imported_file_sets_all_that_it_names(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One version of the config for the whole file."""
    with_config(fake, pyrage.x25519.Identity.generate())
    write_atomically(tmp_path / ".env", b"ONE=1\nTWO='2 and more'\n")
    assert rollway(monkeypatch, "config", "import", "shop", "local", str(tmp_path / ".env")) == 0
    assert fake.bodies("POST")[0]["set"] == {"ONE": {"plain": "1"}, "TWO": {"plain": "2 and more"}}


REFUSALS = {
    "usage": (400, 2),
    "refused": (409, 4),
    "not found": (404, 5),
    "failed": (500, 1),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_coordinator_refuses_is_told_in_its_words(
    case: str, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is the coordinator's, and with --json stderr is one object."""
    status, code = REFUSALS[case]
    error = {"error": "it is so", "what_to_do": "Do otherwise.", "code": code}
    fake.answers["GET", "/v1/status"] = (status, error)
    assert rollway(monkeypatch, "status", "--json") == code
    assert json.loads(capsys.readouterr().err) == error


def test_an_answer_that_is_none_is_no_traceback(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Something else listens there: told in a sentence, exit 1."""
    fake.answers["GET", "/v1/ps"] = (200, b"<html>")
    assert rollway(monkeypatch, "ps") == 1
    assert "cannot read what" in capsys.readouterr().err


def test_ps_names_the_hosts_of_which_it_knows_nothing(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that are missing are not taken for instances that are gone; hosts of other environments do not matter."""
    away = {"address": "", "connected": False}
    hosts = [
        {"host": "h1", "environments": ["local"], "address": "", "connected": True},
        {"host": "h2", "environments": ["local"], **away},
        {"host": "h3", "environments": ["staging"], **away},
    ]
    fake.answers |= {("GET", "/v1/ps"): (200, []), ("GET", "/v1/status"): (200, {"apps": [], "hosts": hosts})}
    assert rollway(monkeypatch, "ps", "shop", "local") == 0
    assert capsys.readouterr().err == "rollway: not connected, so that what runs there is not known: h2\n"
    assert rollway(monkeypatch, "ps", "shop", "local", "--json") == 0
    assert capsys.readouterr() == ("[]\n", "")


def test_nobody_there_is_exit_6(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The hosts go on, and the message says so."""
    monkeypatch.setenv("ROLLWAY_COORDINATOR", "https://127.0.0.1:1")
    monkeypatch.setenv("ROLLWAY_TOKEN", TOKEN)
    assert rollway(monkeypatch, "status") == 6
    error, what_to_do = capsys.readouterr().err.splitlines()
    assert error == "rollway: cannot reach https://127.0.0.1:1: connection refused"
    assert "hosts go on" in what_to_do


MISTYPED = {
    "a verb": (["roolback"], "rollback"),
    "another verb": (["satus"], "status"),
    "a verb of a group": (["rollout", "abrot"], "abort"),
}


@pytest.mark.parametrize("case", MISTYPED)
def test_a_mistyped_verb_is_answered_by_the_one_that_was_meant(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 3 a.m. fingers slip: exit 2, and the right word."""
    words, meant = MISTYPED[case]
    assert rollway(monkeypatch, *words) == 2
    assert f"Did you mean '{meant}'?" in capsys.readouterr().err


WRONG = {
    "no such verb": ["fly"],
    "an unknown option": ["status", "--fast"],
    "a missing argument": ["swap", "shop"],
    "no release at all": ["swap", "shop", "local"],
    "a release and a ref": ["swap", "shop", "local", "v1", "--ref", "main"],
    "a name that cannot be one": ["status", "Shop!"],
    "a config key in lower case": ["config", "set", "shop", "local", "key=1"],
    "neither build nor ref": ["release", "create", "shop", "local"],
    "too many hosts": ["up", "--hosts", "1000"],
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_words_exit_2_in_the_form_of_all_errors(
    case: str, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script reads one kind of error; nothing was asked of the coordinator."""
    assert rollway(monkeypatch, *WRONG[case], "--json") == 2
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["code"] == 2
    assert fake.asked == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One learns a verb from the terminal alone; of a group, from each of its verbs."""
    assert run([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example" in shown or "Commands" in shown


def test_ctrl_c_detaches_and_says_how_to_come_back(fake: FakeCoordinator) -> None:
    """The rollout goes on without its watcher: exit 130."""
    ready_to_swap(fake)
    fake.answers["GET", "/v1/rollouts/r-1"] = (200, rollout())
    swap = subprocess.Popen(
        [sys.executable, "-m", "agent", "swap", "shop", "local", "v2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert swap.stdout is not None
    assert swap.stdout.readline().endswith(" rollout r-1: running\n")
    swap.send_signal(signal.SIGINT)
    _, errors = swap.communicate(timeout=DEADLINE_S)
    assert swap.returncode == 130
    assert "rollway rollout watch r-1" in errors


def test_a_watcher_waits_for_a_coordinator_that_is_away(
    fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A coordinator that is restarted in the middle of a swap is no failure of the swap."""
    ready_to_swap(fake)
    away = {"error": "starting", "code": 6}
    fake.answers["GET", "/v1/rollouts/r-1"] = [(503, away), (503, away), (200, rollout(state="done"))]
    assert rollway(monkeypatch, "swap", "shop", "local", "v2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("does not answer" in line for line in lines) == 1
    assert lines[-1] == "shop local runs v2"


def test_a_role_is_started_without_the_libraries_of_the_command_line() -> None:
    """A host has neither click nor a database, and its agent starts all the same."""
    code = (
        "import sys; from agent.__main__ import _run; code = _run(['agent', 'run', '--config', '/nowhere/agent.toml']);"
        "import agent.host.main; unwanted = {'click', 'rich_click', 'sqlalchemy', 'alembic'};"
        "print(code, sorted(unwanted & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "5 []\n"
