"""Values of variables: typed, piped, shown."""

import os
import pty
import subprocess
import sys
from typing import Final

import pyrage  # type: ignore[import-untyped]  # it has no stubs
import pytest

from tests.integration.cli.coordinator import FakeCoordinator
from tests.integration.cli.story import LOCAL, rollway

DEADLINE_S: Final = 30
SET: Final = [sys.executable, "-m", "agent", "config", "set", "shop", "local"]
KEY: Final = "-----BEGIN-----\nabc\n-----END-----"


@pytest.fixture
def config(fake: FakeCoordinator) -> FakeCoordinator:
    """An environment with two variables, one of them of three lines."""
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    values = {"PLAIN": {"plain": "a b"}, "TLS_KEY": {"plain": KEY}}
    fake.answers |= {
        ("GET", f"{LOCAL}/config"): (200, {"version": 3, "values": values, "secrets": [], "recipient": recipient}),
        ("POST", f"{LOCAL}/config"): (200, {"version": 4}),
        ("GET", "/v1/apps/shop/builds"): (200, []),
    }
    return fake


def test_a_value_may_come_from_stdin(config: FakeCoordinator) -> None:
    """Whole, with its lines, without the last newline; it stands in no history of a shell."""
    done = subprocess.run([*SET, "TLS_KEY=-"], input=f"{KEY}\n", text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0
    assert config.bodies("POST")[0]["set"] == {"TLS_KEY": {"plain": KEY}}


def test_a_secret_is_asked_for_unseen(config: FakeCoordinator) -> None:
    """What is typed does not appear on the terminal, and leaves the machine encrypted."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen([*SET, "API_KEY", "--secret"], stdin=theirs, stdout=theirs, stderr=theirs, text=False)
    try:
        seen = b""
        while b"API_KEY: " not in seen:
            seen += os.read(ours, 1024)
        os.write(ours, b"hush-hush\n")
        assert child.wait(DEADLINE_S) == 0
        seen += os.read(ours, 1024)
    finally:
        child.kill()
        child.wait()
        os.close(ours)
        os.close(theirs)
    assert b"hush-hush" not in seen
    ((asked),) = config.bodies("POST")
    assert list(asked["set"]) == ["API_KEY"]  # type: ignore[call-overload]  # an object of the request
    assert not any(b"hush-hush" in request.body for request in config.asked)


WRONG = {
    "a key without value": ["KEY"],
    "a secret key without value where nobody can type": ["KEY", "--secret"],
    "stdin twice": ["ONE=-", "TWO=-"],
}


@pytest.mark.parametrize("case", WRONG)
def test_a_value_that_is_missing_is_an_error(case: str, config: FakeCoordinator) -> None:
    """A script never waits for somebody to type."""
    done = subprocess.run(
        [*SET, *WRONG[case]], stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 2
    assert config.asked == []


def test_a_value_of_several_lines_is_quoted_in_the_list_and_whole_alone(
    config: FakeCoordinator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list has a line a variable; one variable alone comes as it is, for a file."""
    assert config.url
    assert rollway(monkeypatch, "config", "get", "shop", "local") == 0
    assert capsys.readouterr().out.splitlines() == [
        "PLAIN=a b",
        r'TLS_KEY="-----BEGIN-----\nabc\n-----END-----"',
    ]
    assert rollway(monkeypatch, "config", "get", "shop", "local", "TLS_KEY") == 0
    assert capsys.readouterr().out == f"{KEY}\n"
