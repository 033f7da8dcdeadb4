"""The shapes and exit codes of the CLI that scripts depend on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, Json, fleet, wait_for
from tests.e2e.test_lives import deploy, plain

SHAPES: dict[str, tuple[list[str], set[str]]] = {
    "build show": (["build", "list", "tale"], {"id", "app", "version", "commit"}),
    "release list": (["release", "list", "tale", "local"], {"app", "environment", "release", "build"}),
    "rollout list": (
        ["rollout", "list"],
        {"id", "app", "environment", "release", "from", "strategy", "state", "reason", "hosts"},
    ),
    "ps": (
        ["ps", "tale", "local"],
        {"host", "app", "environment", "release", "process", "instance", "pid", "state", "since", "restarts"},
    ),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("contract")
    with fleet(folder, hosts=1) as one:
        source = plain(folder / "tale", "tale", 9401, {"v1": "good", "v2": "good"})
        deploy(one, "tale", source, "v1")
        deploy(one, "tale", source, "v2")
        yield one


@pytest.mark.parametrize(("words", "fields"), SHAPES.values(), ids=list(SHAPES))
def test_rows(told: Fleet, words: list[str], fields: set[str]) -> None:
    """Each row of a list has at least the fields of the contract."""
    rows = told.rows(*words)
    assert rows
    for row in rows:
        assert fields <= row.keys()


def test_status(told: Fleet) -> None:
    """`status` says how many instances are ready of how many wanted, and which hosts there are."""
    status = told.json("status")
    (app,) = [entry for entry in rows(status, "apps") if entry["app"] == "tale"]
    assert {"app": "tale", "environment": "local", "release": "v2", "ready": 1, "wanted": 1}.items() <= app.items()
    assert [host["host"] for host in rows(status, "hosts")] == ["h1"]


def rows(answer: Json, key: str) -> list[Json]:
    value = answer[key]
    assert isinstance(value, list)
    return value


def test_swap_to_what_runs(told: Fleet) -> None:
    """A swap to the release that runs does nothing and exits 0."""
    before = told.rows("ps", "tale", "local")
    assert told.json("swap", "tale", "local", "v2")["state"] == "done"
    assert [row["pid"] for row in told.rows("ps", "tale", "local")] == [row["pid"] for row in before]


def test_plan_changes_nothing(told: Fleet) -> None:
    """`--plan` says what would happen, and nothing happens."""
    before = told.rows("rollout", "list")
    assert "swap h1" in told.rollway("swap", "tale", "local", "v1", "--plan").stdout
    assert told.rows("rollout", "list") == before
    assert told.releases("tale") == {"v2"}


def test_wrong_state(told: Fleet) -> None:
    """Abort with no rollout running is refused, exit 4."""
    assert "no rollout" in told.rollway("rollout", "abort", code=4).stderr


def test_rollback_and_none_left(told: Fleet, tmp_path: Path) -> None:
    """Rollback goes to stable without asking which; with nothing left to go back to it exits 1 and says so."""
    source = plain(tmp_path / "r", "back", 9402, {"v1": "good", "v2": "good"})
    deploy(told, "back", source, "v1")
    deploy(told, "back", source, "v2")
    assert told.json("rollback", "back", "local")["release"] == "v1"
    wait_for("v1 runs alone", lambda: told.releases("back") == {"v1"})
    assert "nothing" in told.rollway("rollback", "back", "local", code=1).stderr


@pytest.mark.parametrize(
    "words", [["--help"], ["swap", "--help"], ["rollout", "--help"], ["build", "--help"]], ids=" ".join
)
def test_help_has_examples(told: Fleet, words: list[str]) -> None:
    """Help goes to stdout, and shows a command to copy."""
    assert "rollway " in told.rollway(*words).stdout


def test_nothing_is_written_in_colour(told: Fleet, tmp_path: Path) -> None:
    """In a pipe no verb writes escape sequences."""
    for words in (["status"], ["ps"], ["rollout", "list"], ["release", "list", "tale", "local"]):
        done = told.rollway(*words, cwd=tmp_path)
        assert "\x1b" not in done.stdout + done.stderr
